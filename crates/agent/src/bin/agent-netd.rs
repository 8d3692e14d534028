//! netd alone, for this crate's tests: the program `nubo` becomes it by `nubo netd`.

fn main() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(65_534);
    let options = agent::netd::Options { uid: number("NETD_UID"), gid: number("NETD_GID") };
    std::process::exit(agent::netd::main(options));
}
