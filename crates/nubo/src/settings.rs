//! Settings: flag, then environment, then `$NUBO_STATE/nubo.toml`, then default.

use agent_api::SharingSetting;
use anyhow::{Context, Result, anyhow, bail};
use model::deadline::Deadlines;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Flags that every command takes. Each has an environment variable of the name in its help.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// Where the cloud keeps everything (NUBO_STATE, default /var/lib/nubo)
    #[arg(long, global = true)]
    pub state: Option<PathBuf>,
    /// Address and port of the API (NUBO_LISTEN, default 127.0.0.1:8774; port 0: any free one)
    #[arg(long, global = true)]
    pub listen: Option<String>,
    /// What the catalog says (NUBO_PUBLIC_URL, default: the bound address)
    #[arg(long, global = true)]
    pub public_url: Option<String>,
    /// auto, kvm or tcg (NUBO_ACCEL)
    #[arg(long, global = true)]
    pub accel: Option<String>,
    /// sqlite or postgres://… (NUBO_STORE)
    #[arg(long, global = true)]
    pub store: Option<String>,
    /// Network of the floating addresses (NUBO_EXTERNAL_CIDR, default 172.24.4.0/24)
    #[arg(long, global = true)]
    pub external_cidr: Option<String>,
    /// Masquerade outward through this interface (NUBO_UPLINK; unset: not at all)
    #[arg(long, global = true)]
    pub uplink: Option<String>,
    /// Network namespace in which the cloud lives (NUBO_NETNS)
    #[arg(long, global = true)]
    pub netns: Option<String>,
    /// Seconds until what is on its way is in ERROR, as in build=1800,port=600 (NUBO_DEADLINES; README.md has all names)
    #[arg(long, global = true)]
    pub deadlines: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<String>,
    public_url: Option<String>,
    accel: Option<String>,
    store: Option<String>,
    external_cidr: Option<String>,
    uplink: Option<String>,
    netns: Option<String>,
    ksm: Option<String>,
    bcrypt_rounds: Option<u32>,
    trash_retention: Option<u32>,
    history_retention: Option<u32>,
    reclaim_instance_interval: Option<u32>,
    image_format_enforcement: Option<bool>,
    image_import: Option<control::web::Rules>,
    #[serde(default)]
    image_conversion: ImageConversion,
    image_property_protections: Option<PropertyProtections>,
    /// What holds images beside the folder `control/images`, by the ids that clients know them by.
    #[serde(default)]
    image_stores: BTreeMap<String, control::ImageStore>,
    image_cache: Option<ImageCache>,
    image_default_store: Option<String>,
    #[serde(default)]
    deadlines: BTreeMap<String, u32>,
    security_compliance: Option<SecurityCompliance>,
    #[serde(default)]
    unified_limit: UnifiedLimit,
    #[serde(default)]
    federation: control::Federation,
    saml: Option<control::Saml>,
    #[serde(default)]
    token: Token,
    #[serde(default)]
    auth: Auth,
    #[serde(default)]
    login_limit: LoginLimit,
}

/// How the allocator of these processes behaves, as its environment says it: memory comes by pages as it is used, and is
/// given back 10 ms after it is free. Otherwise the kernel gives it huge pages, of which most stays empty (27 MiB at rest
/// instead of 6), and what many uploads had at once stays for a second.
const ALLOCATOR: [(&str, &str); 2] = [("MIMALLOC_ARENA_EAGER_COMMIT", "0"), ("MIMALLOC_PURGE_DELAY", "10")];

/// How many logins may fail; a burst of 0 is no limit.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LoginLimit {
    user_burst: Option<u32>,
    user_per_minute: Option<u32>,
    source_burst: Option<u32>,
    source_per_minute: Option<u32>,
    trusted_proxies: Vec<std::net::IpAddr>,
}

impl LoginLimit {
    fn read(self) -> control::LoginLimit {
        let usual = control::LoginLimit::default();
        let rate = |burst: Option<u32>, per_minute: Option<u32>, usual: control::Rate| control::Rate {
            burst: burst.unwrap_or(usual.burst),
            per_minute: per_minute.unwrap_or(usual.per_minute),
        };
        control::LoginLimit {
            per_user: rate(self.user_burst, self.user_per_minute, usual.per_user),
            per_source: rate(self.source_burst, self.source_per_minute, usual.per_source),
            trusted_proxies: self.trusted_proxies,
        }
    }
}

/// What imports make of disks, in Glance's words.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ImageConversion {
    output_format: Option<agent_api::DiskFormat>,
}

/// Copies on this machine of images that lie elsewhere.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ImageCache {
    /// As people write sizes: `10G`.
    max_size: String,
    /// Without it, `control/image-cache` of the state folder.
    folder: Option<PathBuf>,
}

impl ImageCache {
    fn read(self, state: &Path) -> Result<control::CacheOptions> {
        let most_bytes = workshop::parse_size(&self.max_size).context("image_cache: max_size")?;
        let folder = self.folder.unwrap_or_else(|| state.join("control/image-cache"));
        Ok(control::CacheOptions { folder, most_bytes })
    }
}

/// How tokens are made, in Keystone's words.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Token {
    provider: Option<String>,
}

impl Token {
    fn read(self) -> Result<control::TokenProvider> {
        let Some(name) = self.provider else { return Ok(control::TokenProvider::default()) };
        let names = control::TokenProvider::NAMES.join(", ");
        control::TokenProvider::parse(&name).with_context(|| format!("[token] provider: '{name}' is none of {names}"))
    }
}

/// Where Glance's file of property protections lies, and what its words name.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PropertyProtections {
    file: PathBuf,
    format: Option<String>,
}

/// The most bytes of the file.
const PROTECTIONS_BYTES: u64 = 1 << 20;

impl PropertyProtections {
    /// Only whoever serves images reads the file: it need not be readable for others.
    pub fn read(&self) -> Result<(String, control::protection::Format)> {
        let format = match self.format.as_deref() {
            None | Some("roles") => control::protection::Format::Roles,
            Some("policies") => control::protection::Format::Policies,
            Some(other) => bail!("[image_property_protections] format: '{other}' is neither roles nor policies"),
        };
        let (path, mut text) = (self.file.display(), String::new());
        let file = std::fs::File::open(&self.file).with_context(|| format!("cannot read {path}"))?;
        file.take(PROTECTIONS_BYTES + 1).read_to_string(&mut text).with_context(|| format!("cannot read {path}"))?;
        if text.len() as u64 > PROTECTIONS_BYTES {
            bail!("{path} is larger than {PROTECTIONS_BYTES} bytes");
        }
        Ok((text, format))
    }
}

/// What the bits of methods in tokens mean, in Keystone's words.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Auth {
    methods: Vec<String>,
}

impl Auth {
    fn read(self) -> Result<control::MethodOrder> {
        control::MethodOrder::parse(&self.methods).map_err(|fault| anyhow::anyhow!(fault.message))
    }
}

/// How limits bind each other, in Keystone's words.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct UnifiedLimit {
    enforcement_model: Option<String>,
}

impl UnifiedLimit {
    fn read(self) -> Result<control::LimitModel> {
        let Some(name) = self.enforcement_model else { return Ok(control::LimitModel::default()) };
        let names = control::LimitModel::NAMES.join(", ");
        control::LimitModel::parse(&name).with_context(|| format!("enforcement_model: '{name}' is none of {names}"))
    }
}

/// What is asked of passwords and logins, in Keystone's words.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SecurityCompliance {
    lockout_failure_attempts: Option<u32>,
    lockout_duration: Option<u32>,
    unique_last_password_count: u16,
    minimum_password_age: u32,
    password_expires_days: Option<u32>,
    password_regex: Option<String>,
    password_regex_description: Option<String>,
    change_password_upon_first_use: bool,
}

impl SecurityCompliance {
    fn read(self) -> control::Compliance {
        let usual = control::Compliance::default();
        control::Compliance {
            lockout_failure_attempts: self.lockout_failure_attempts.filter(|most| *most > 0),
            lockout_duration_s: self.lockout_duration.map_or(usual.lockout_duration_s, i64::from),
            unique_last_password_count: self.unique_last_password_count.into(),
            minimum_password_age_days: self.minimum_password_age.into(),
            password_expires_days: self.password_expires_days.map(i64::from),
            password_regex: self.password_regex,
            password_regex_description: self.password_regex_description,
            change_password_upon_first_use: self.change_password_upon_first_use,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub state: PathBuf,
    pub listen: SocketAddr,
    pub public_url: Option<String>,
    pub accel: String,
    /// `sqlite` or a `postgres://` address.
    pub store: String,
    pub external_cidr: ipnet::Ipv4Net,
    pub uplink: Option<String>,
    pub netns: Option<String>,
    /// `on` or `off`; none: the host's kernel and QEMU do what they do by themselves.
    pub ksm: Option<String>,
    pub bcrypt_rounds: u32,
    /// Seconds for which deleted things can be brought back; 0: not at all.
    pub trash_retention_s: u32,
    pub history_retention_s: u32,
    /// Seconds of Nova's soft delete; 0: off.
    pub reclaim_instance_interval_s: u32,
    pub image_format_enforcement: bool,
    pub image_cache: Option<control::CacheOptions>,
    pub image_stores: BTreeMap<String, control::ImageStore>,
    /// Where images go that nobody names a store for.
    pub image_default_store: Option<String>,
    /// What may be fetched by users' URLs.
    pub image_import: control::web::Rules,
    /// What imports make of disks, if anything.
    pub image_conversion: Option<agent_api::DiskFormat>,
    pub image_property_protections: Option<PropertyProtections>,
    pub deadlines: Deadlines,
    pub compliance: control::Compliance,
    pub limit_model: control::LimitModel,
    pub federation: control::Federation,
    pub saml: Option<control::Saml>,
    pub token_provider: control::TokenProvider,
    pub auth_methods: control::MethodOrder,
    pub login_limit: control::LoginLimit,
}

impl Settings {
    pub fn load(flags: &Flags) -> Result<Settings> {
        let state = pick(&flags.state.as_ref().map(|p| p.display().to_string()), "NUBO_STATE", &None);
        let state = std::path::absolute(PathBuf::from(state.unwrap_or_else(|| "/var/lib/nubo".into())))?;
        let file = File::load(&state.join("nubo.toml"))?;
        let listen = pick(&flags.listen, "NUBO_LISTEN", &file.listen).unwrap_or_else(|| "127.0.0.1:8774".into());
        let cidr = pick(&flags.external_cidr, "NUBO_EXTERNAL_CIDR", &file.external_cidr);
        let cidr = cidr.unwrap_or_else(|| "172.24.4.0/24".into());
        let image_cache = file.image_cache.map(|cache| cache.read(&state)).transpose()?;
        let settings = Settings {
            state,
            listen: listen.parse().with_context(|| format!("NUBO_LISTEN: {listen} is not ADDRESS:PORT"))?,
            public_url: pick(&flags.public_url, "NUBO_PUBLIC_URL", &file.public_url)
                .map(|url| url.trim_end_matches('/').to_owned()),
            accel: pick(&flags.accel, "NUBO_ACCEL", &file.accel).unwrap_or_else(|| "auto".into()),
            store: pick(&flags.store, "NUBO_STORE", &file.store).unwrap_or_else(|| "sqlite".into()),
            external_cidr: cidr
                .parse()
                .with_context(|| format!("NUBO_EXTERNAL_CIDR: {cidr} is not an IPv4 network"))?,
            uplink: pick(&flags.uplink, "NUBO_UPLINK", &file.uplink),
            netns: pick(&flags.netns, "NUBO_NETNS", &file.netns),
            ksm: pick(&None, "NUBO_KSM", &file.ksm),
            bcrypt_rounds: number("NUBO_BCRYPT_ROUNDS", file.bcrypt_rounds, 12)?,
            trash_retention_s: number(
                "NUBO_TRASH_RETENTION",
                file.trash_retention,
                u32::try_from(control::TRASH_RETENTION_S)?,
            )?,
            history_retention_s: number(
                "NUBO_HISTORY_RETENTION",
                file.history_retention,
                u32::try_from(control::HISTORY_RETENTION_S)?,
            )?,
            reclaim_instance_interval_s: number("NUBO_RECLAIM_INSTANCE_INTERVAL", file.reclaim_instance_interval, 0)?,
            image_format_enforcement: file.image_format_enforcement.unwrap_or(true),
            image_import: file.image_import.unwrap_or_default(),
            image_conversion: file.image_conversion.output_format,
            image_property_protections: file.image_property_protections,
            image_stores: file.image_stores,
            image_cache,
            image_default_store: file.image_default_store,
            deadlines: deadlines(&flags.deadlines, &file.deadlines)?,
            compliance: file.security_compliance.unwrap_or_default().read(),
            limit_model: file.unified_limit.read()?,
            federation: file.federation,
            saml: file.saml,
            token_provider: file.token.read()?,
            auth_methods: file.auth.read()?,
            login_limit: file.login_limit.read(),
        };
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<()> {
        if !matches!(self.accel.as_str(), "auto" | "kvm" | "tcg") {
            bail!("NUBO_ACCEL: '{}' is none of auto, kvm, tcg", self.accel);
        }
        self.memory_sharing()?;
        let postgres = self.store.starts_with("postgres://") || self.store.starts_with("postgresql://");
        if self.store != "sqlite" && !postgres {
            bail!("NUBO_STORE: '{}' is neither sqlite nor postgres://…", self.store);
        }
        if self.external_cidr.prefix_len() > 29 {
            bail!("NUBO_EXTERNAL_CIDR: {} is too small: a /29 is the smallest that works", self.external_cidr);
        }
        if let Some(name) = &self.netns {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.chars().all(plain) {
                bail!("NUBO_NETNS: '{name}' is no name of a network namespace");
            }
        }
        if !(4..=16).contains(&self.bcrypt_rounds) {
            bail!("NUBO_BCRYPT_ROUNDS: {} lies outside 4 to 16", self.bcrypt_rounds);
        }
        Ok(())
    }

    /// Whether guests share alike pages of their memory.
    pub fn memory_sharing(&self) -> Result<SharingSetting> {
        let parsed = SharingSetting::parse(self.ksm.as_deref());
        parsed.with_context(|| format!("NUBO_KSM: '{}' is neither on nor off", self.ksm.as_deref().unwrap_or_default()))
    }

    pub fn store_url(&self) -> String {
        match self.store.as_str() {
            "sqlite" => format!("sqlite:{}", self.state.join("control/nubo.db").display()),
            postgres => postgres.to_owned(),
        }
    }

    pub fn run(&self) -> PathBuf {
        self.state.join("run")
    }

    /// The environment that makes a child process read the same settings.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let mut all = vec![
            ("NUBO_STATE", self.state.display().to_string()),
            ("NUBO_LISTEN", self.listen.to_string()),
            ("NUBO_ACCEL", self.accel.clone()),
            ("NUBO_STORE", self.store.clone()),
            ("NUBO_EXTERNAL_CIDR", self.external_cidr.to_string()),
            ("NUBO_BCRYPT_ROUNDS", self.bcrypt_rounds.to_string()),
            ("NUBO_DEADLINES", self.deadlines.to_string()),
        ];
        let optional = [
            ("NUBO_PUBLIC_URL", &self.public_url),
            ("NUBO_UPLINK", &self.uplink),
            ("NUBO_NETNS", &self.netns),
            ("NUBO_KSM", &self.ksm),
        ];
        all.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
        all.extend(ALLOCATOR.map(|(name, value)| (name, value.to_owned())));
        all
    }

    /// What stands before a command that a person shall type.
    pub fn command_prefix(&self) -> String {
        self.netns.as_ref().map_or(String::new(), |name| format!("ip netns exec {name} "))
    }
}

impl File {
    fn load(path: &Path) -> Result<File> {
        match std::fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text).with_context(|| format!("cannot read {}", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(File::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }
}

fn pick(flag: &Option<String>, variable: &str, file: &Option<String>) -> Option<String> {
    let variable = || std::env::var(variable).ok().filter(|text| !text.is_empty());
    flag.clone().or_else(variable).or_else(|| file.clone())
}

/// Each deadline by itself: flag, then environment, then file, then default.
fn deadlines(flag: &Option<String>, file: &BTreeMap<String, u32>) -> Result<Deadlines> {
    let mut deadlines = Deadlines::default();
    deadlines.set_all(file).map_err(|why| anyhow!("nubo.toml, [deadlines]: {why}"))?;
    let variable = std::env::var("NUBO_DEADLINES").unwrap_or_default();
    deadlines.read(&variable).map_err(|why| anyhow!("NUBO_DEADLINES: {why}"))?;
    deadlines.read(flag.as_deref().unwrap_or_default()).map_err(|why| anyhow!("--deadlines: {why}"))?;
    Ok(deadlines)
}

fn number(variable: &str, file: Option<u32>, default: u32) -> Result<u32> {
    match std::env::var(variable) {
        Ok(text) => text.parse().with_context(|| format!("{variable}: '{text}' is not a number")),
        Err(_) => Ok(file.unwrap_or(default)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_memory_is_on_or_off_or_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let load = |text: &str| {
            std::fs::write(folder.path().join("nubo.toml"), text).unwrap();
            Settings::load(&Flags { state: Some(folder.path().to_owned()), ..Flags::default() })
        };
        assert_eq!(load("").unwrap().memory_sharing().unwrap(), SharingSetting::AsIs);
        let on = load("ksm = \"on\"\n").unwrap();
        assert_eq!(on.memory_sharing().unwrap(), SharingSetting::On);
        assert!(on.environment().contains(&("NUBO_KSM", "on".into())));
        let refused = load("ksm = \"yes\"\n").unwrap_err().to_string();
        assert_eq!(refused, "NUBO_KSM: 'yes' is neither on nor off");
    }

    #[test]
    fn stores_of_images_are_folders_and_tables() {
        let text = r#"
            image_default_store = "ceph"
            [image_stores]
            fast = "/srv/fast"
            [image_stores.ceph]
            type = "s3"
            endpoint = "https://rgw.example.org"
            bucket = "images"
            access_key = "nubo"
            secret_file = "/etc/nubo/s3"
            weight = 10
        "#;
        let file: File = toml::from_str(text).unwrap();
        assert_eq!(file.image_default_store.as_deref(), Some("ceph"));
        assert_eq!((file.image_stores["fast"].weight, file.image_stores["ceph"].weight), (0, 10));
        let refused = toml::from_str::<File>(&text.replace("bucket", "buckets")).unwrap_err().to_string();
        assert!(refused.contains("unknown field `buckets`"), "{refused}");
    }

    #[test]
    fn each_deadline_comes_from_the_nearest_place_that_names_it() {
        let file: File = toml::from_str("[deadlines]\nbuild = 60\nport = 61\n").unwrap();
        let set = deadlines(&Some("port=30".into()), &file.deadlines).unwrap().to_string();
        assert!(set.starts_with("build=60,start=600,") && set.contains("floating_ip=600,port=30"), "{set}");
        for (flag, said) in
            [("bild=60", "there is no deadline 'bild'"), ("port=0", "lasts 1 to 2592000 seconds, not 0")]
        {
            let refused = deadlines(&Some(flag.into()), &file.deadlines).unwrap_err().to_string();
            assert!(refused.starts_with("--deadlines: ") && refused.contains(said), "{refused}");
        }
    }
}
