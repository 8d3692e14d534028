//! A PostgreSQL server for one test: own directory, Unix socket only, gone with its guard.

use crate::require::{postgres_bin, require};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running server. Dropping it stops the server and removes its files; so does the death of the test process, which
/// closes the pipe that the watching shell reads.
pub struct Postgres {
    bin: PathBuf,
    dir: tempfile::TempDir,
    /// The account that the server runs as, if the test is root: PostgreSQL refuses to be root.
    account: Option<(u32, u32)>,
    shell: Child,
}

/// Stops the server at once when its standard input ends, and removes the directory if the test could not.
const WATCH: &str = r#"
dir=$1; shift
"$@" </dev/null >"$dir/log" 2>&1 &
server=$!
trap '' INT TERM HUP
read -r _
kill -QUIT "$server"
wait "$server"
rm -rf "$dir"
"#;

impl Postgres {
    /// Starts a server that does not sync (a test's data may be lost with the machine); `None` when this machine has
    /// no PostgreSQL, see [`require`].
    pub fn start() -> Option<Postgres> {
        Postgres::start_with(&["fsync=off", "synchronous_commit=off", "full_page_writes=off"])
    }

    /// Starts a server with these settings.
    pub fn start_with(settings: &[&str]) -> Option<Postgres> {
        if !require("postgres") {
            return None;
        }
        let bin = postgres_bin().expect("was just found");
        let dir = tempfile::Builder::new().prefix("nubo-pg-").tempdir_in("/tmp").expect("a temporary directory");
        let account = account();
        if let Some((uid, gid)) = account {
            std::os::unix::fs::chown(dir.path(), Some(uid), Some(gid)).expect("the server's directory");
        }
        let mut initdb = Command::new(bin.join("initdb"));
        initdb.args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "-U", "postgres", "-D"]);
        let output = demoted(&mut initdb, account).arg(dir.path().join("data")).output().expect("initdb runs");
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(WATCH).arg("sh").arg(dir.path()).arg(bin.join("postgres"));
        shell.arg("-D").arg(dir.path().join("data")).arg("-k").arg(dir.path());
        for setting in ["listen_addresses=", "shared_buffers=32MB", "max_connections=50"].iter().chain(settings) {
            shell.arg("-c").arg(setting);
        }
        let shell = demoted(&mut shell, account).stdin(Stdio::piped()).spawn().expect("a shell runs");
        let server = Postgres { bin, dir, account, shell };
        server.wait_until_ready();
        Some(server)
    }

    /// The server's first database.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// Creates a database and returns its URL.
    pub fn database(&self, name: &str) -> String {
        let mut createdb = Command::new(self.bin.join("createdb"));
        createdb.arg("-h").arg(self.dir.path()).args(["-U", "postgres", name]);
        let output = demoted(&mut createdb, self.account).output().expect("createdb runs");
        assert!(output.status.success(), "createdb: {}", String::from_utf8_lossy(&output.stderr));
        self.url_of(name)
    }

    /// Runs statements in a database past whoever else uses it; what they return, a row a line, columns between bars.
    pub fn sql(&self, database: &str, text: &str) -> String {
        let mut psql = Command::new(self.bin.join("psql"));
        psql.arg("-h").arg(self.dir.path()).args(["-U", "postgres", "-d", database, "-XqAt", "-v", "ON_ERROR_STOP=1"]);
        let output = demoted(&mut psql, self.account).args(["-c", text]).output().expect("psql runs");
        assert!(output.status.success(), "{text}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    fn url_of(&self, name: &str) -> String {
        format!("postgres:///{name}?host={}&user=postgres", self.dir.path().display())
    }

    fn wait_until_ready(&self) {
        let pid_file = self.dir.path().join("data/postmaster.pid");
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is_ready(&pid_file) {
            let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "PostgreSQL did not start: {log}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        // Cannot fail for a child that nobody else waited for.
        let _ = self.shell.wait();
    }
}

/// The eighth line of the pid file says what the server does.
fn is_ready(pid_file: &Path) -> bool {
    let text = std::fs::read_to_string(pid_file).unwrap_or_default();
    text.lines().nth(7).is_some_and(|state| state.trim() == "ready")
}

/// The account `postgres`, if we are root.
fn account() -> Option<(u32, u32)> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let user = nix::unistd::User::from_name("postgres").ok().flatten().expect("root needs the account postgres");
    Some((user.uid.as_raw(), user.gid.as_raw()))
}

/// Runs as that account, in a directory that it can enter.
fn demoted(command: &mut Command, account: Option<(u32, u32)>) -> &mut Command {
    command.current_dir("/");
    match account {
        Some((uid, gid)) => command.uid(uid).gid(gid),
        None => command,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_answers_and_leaves_nothing() {
        let Some(server) = Postgres::start() else { return };
        let url = server.database("other");
        assert!(url.contains("/other?"));
        assert_eq!(server.sql("other", "SELECT current_database(), 1"), "other|1");
        let (dir, socket) = (server.dir.path().to_owned(), server.dir.path().join(".s.PGSQL.5432"));
        std::os::unix::net::UnixStream::connect(&socket).expect("the server listens");
        drop(server);
        assert!(!dir.exists());
        assert!(std::os::unix::net::UnixStream::connect(&socket).is_err());
    }
}
