//! The first files of a node: configuration, an identity for each side, and the pepper.
//!
//! A folder that holds any of them is left alone: overwriting a key can't be undone. The configuration is
//! written last, so that a folder with one is complete; what was written before a failure is taken away again.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use rand::{TryRng as _, rngs::SysRng};

use crate::{
    clock::Timestamp,
    config::{
        self, FILE_NAME, Problems,
        example::{self, Line},
    },
    domain::{address::is_host, ids::ClusterId},
    secret::Secret,
    trust::make::{self, CertRequest, KeyKind, Made},
};

/// What to make.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// The cluster that the node is to belong to.
    pub cluster_id: ClusterId,
    /// The folder; made with mode 0700 when it isn't there.
    pub folder: PathBuf,
    /// Added to 443 for phones, 444 for the federation, 80 for plain HTTP and 1464 for figures and health; at most
    /// [`MAX_PORT_BASE`].
    pub port_base: u16,
    /// Names and IP addresses under which others reach the node, besides this machine's name.
    pub hosts: Vec<String>,
    /// Further settings; they take the place of those that would be written otherwise.
    pub settings: Vec<Line>,
    /// The present moment, for the validity of the certificates.
    pub now: Timestamp,
}

/// Gives 8443 for phones, 8444 for the federation, 8080 for plain HTTP, 9464 for figures and health.
pub const DEFAULT_PORT_BASE: u16 = 8000;

/// Above this the port for figures and health would not exist.
pub const MAX_PORT_BASE: u16 = u16::MAX - METRICS_PORT;

const PHONE_PORT: u16 = 443;
const FEDERATION_PORT: u16 = 444;
const PLAIN_PORT: u16 = 80;
const METRICS_PORT: u16 = 1_464;

/// As long as voice platforms give their own; a rotation in time is what alarms are for.
const VALIDITY_DAYS: u32 = 5 * 365;

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// The folder, absolute.
    pub folder: PathBuf,
    /// The configuration.
    pub config: PathBuf,
    /// The certificate that other clusters are to trust.
    pub federation_cert: PathBuf,
    /// The certificate that phones are to trust.
    pub phone_cert: PathBuf,
    /// SHA-256 of the federation's certificate, to be compared by telephone.
    pub fingerprint: String,
    /// The command to type next.
    pub next: String,
}

/// Why nothing was made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name given is neither a DNS name nor an IP address.
    #[error("{0:?} is neither a DNS name nor an IP address")]
    Host(String),
    /// A certificate couldn't be made.
    #[error("making the node's certificates failed")]
    Make(#[from] make::Error),
    /// The folder holds a node's files.
    #[error("{} is there already, and init overwrites nothing; {advice}", file.display())]
    Occupied {
        /// A file that is in the way.
        file: PathBuf,
        /// What to do.
        advice: String,
    },
    /// The ports would go beyond 65535.
    #[error("the port base must be at most {MAX_PORT_BASE}")]
    PortBase,
    /// The system gave no random numbers.
    #[error("the system gave no random numbers")]
    Random(#[source] rand::rngs::SysError),
    /// The configuration would be refused, for example since the folder's path is too long for a socket.
    #[error("a node can't run from that folder")]
    Unusable(#[source] Problems),
    /// A file couldn't be written.
    #[error("{} can't be written", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Makes the files, or nothing.
///
/// # Errors
/// [`Error`] with what is in the way.
pub fn create(options: &InitOptions) -> Result<Created, Error> {
    let folder = absolute(&options.folder)?;
    let files = Files::of(&folder);
    files.must_be_absent()?;
    let names = names(&options.hosts)?;
    let text = configuration(options)?;
    config::parse(&text, &files.config).map_err(Error::Unusable)?;
    let subject = |what: &str| format!("emccd {what} {}", options.cluster_id);
    let request = |what: &str, key| {
        CertRequest::new(
            subject(what),
            names.clone(),
            key,
            options.now,
            VALIDITY_DAYS,
        )
    };
    let federation = make::self_signed(&request("federation", KeyKind::P256))?;
    let phone = make::self_signed(&request("phone", KeyKind::Rsa2048))?;
    let mut pepper = vec![0; config::PEPPER_BYTES];
    SysRng.try_fill_bytes(&mut pepper).map_err(Error::Random)?;

    let mut written = Written::default();
    written.folder(&folder)?;
    written.folder(&folder.join("certs"))?;
    written.identity(&files.federation, &federation)?;
    written.identity(&files.phone, &phone)?;
    written.file(&files.pepper, |path| {
        make::write_private(path, &Secret::new(pepper))
    })?;
    written.file(&files.config, |path| make::write_public(path, &text))?;
    written.keep();
    Ok(Created {
        next: format!("emccd run --config {}", shell_word(&files.config)),
        fingerprint: federation.fingerprint_text(),
        federation_cert: files.federation.certificate,
        phone_cert: files.phone.certificate,
        config: files.config,
        folder,
    })
}

struct Pair {
    certificate: PathBuf,
    key: PathBuf,
}

struct Files {
    config: PathBuf,
    federation: Pair,
    phone: Pair,
    pepper: PathBuf,
}

impl Files {
    fn of(folder: &Path) -> Self {
        let pair = |name: &str| Pair {
            certificate: folder.join(format!("certs/{name}.pem")),
            key: folder.join(format!("certs/{name}.key")),
        };
        Self {
            config: folder.join(FILE_NAME),
            federation: pair("federation"),
            phone: pair("phone"),
            pepper: folder.join("pepper.key"),
        }
    }

    fn must_be_absent(&self) -> Result<(), Error> {
        if self.config.symlink_metadata().is_ok() {
            let advice = format!(
                "start that node with `emccd run --config {}`, or name another folder with --dir",
                shell_word(&self.config)
            );
            let file = self.config.clone();
            return Err(Error::Occupied { file, advice });
        }
        let others = [
            &self.federation.certificate,
            &self.federation.key,
            &self.phone.certificate,
            &self.phone.key,
            &self.pepper,
        ];
        match others
            .into_iter()
            .find(|path| path.symlink_metadata().is_ok())
        {
            None => Ok(()),
            Some(file) => Err(Error::Occupied {
                file: file.clone(),
                advice: "move it away, or name another folder with --dir".to_owned(),
            }),
        }
    }
}

/// What has been made so far; taken away again unless it is kept.
#[derive(Default)]
struct Written {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Written {
    /// Makes a folder and those above it. One that is there keeps its mode.
    fn folder(&mut self, path: &Path) -> Result<(), Error> {
        if path.is_dir() {
            return Ok(());
        }
        if let Some(above) = path.parent() {
            self.folder(above)?;
        }
        if path.is_dir() {
            // `a/..` exists once `a` does.
            return Ok(());
        }
        DirBuilder::new()
            .mode(0o700)
            .create(path)
            .map_err(failed(path))?;
        self.folders.push(path.to_owned());
        Ok(())
    }

    fn identity(&mut self, pair: &Pair, made: &Made) -> Result<(), Error> {
        self.file(&pair.key, |path| make::write_private(path, &made.key_pem))?;
        self.file(&pair.certificate, |path| {
            make::write_public(path, &made.certificate_pem)
        })
    }

    fn file(
        &mut self,
        path: &Path,
        write: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<(), Error> {
        write(path).map_err(failed(path))?;
        self.files.push(path.to_owned());
        Ok(())
    }

    fn keep(&mut self) {
        self.files.clear();
        self.folders.clear();
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        // Nothing can be done about what can't be removed, and the error that led here tells more.
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
        for folder in self.folders.iter().rev() {
            let _ = fs::remove_dir(folder);
        }
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    |source| Error::Write { path, source }
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    let path = std::path::absolute(path).map_err(failed(path))?;
    // The commands and the configuration name it as it is, not by way of links that may change.
    Ok(path.canonicalize().unwrap_or(path))
}

/// The names given, this machine's, and those by which it reaches itself.
fn names(hosts: &[String]) -> Result<Vec<String>, Error> {
    if let Some(odd) = hosts.iter().find(|h| !is_host(h)) {
        return Err(Error::Host(odd.clone()));
    }
    let own = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut names: Vec<String> = Vec::new();
    for name in hosts.iter().cloned().chain(config::host_name()).chain(own) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

fn configuration(options: &InitOptions) -> Result<String, Error> {
    let port = |offset: u16| options.port_base.checked_add(offset).ok_or(Error::PortBase);
    let listen = |port: u16| format!("\"0.0.0.0:{port}\"");
    let mut lines = vec![
        Line::new("version", "1"),
        Line::new("cluster-id", format!("\"{}\"", options.cluster_id)),
        Line::new("federation.listen", listen(port(FEDERATION_PORT)?)),
        Line::new("identity.certificate", "\"certs/federation.pem\""),
        Line::new("identity.key", "\"certs/federation.key\""),
        Line::new("phone.listen", listen(port(PHONE_PORT)?)),
        Line::commented_out("phone.plain-listen", listen(port(PLAIN_PORT)?)),
        Line::new("phone.certificate", "\"certs/phone.pem\""),
        Line::new("phone.key", "\"certs/phone.key\""),
        Line::new("admin.socket", "\"admin.sock\""),
        Line::new(
            "metrics.listen",
            format!("\"127.0.0.1:{}\"", port(METRICS_PORT)?),
        ),
        Line::new("store.url", "\"sqlite:emccd.db\""),
        Line::new("credentials.pepper-file", "\"pepper.key\""),
    ];
    for setting in &options.settings {
        match lines.iter_mut().find(|line| line.key == setting.key) {
            Some(line) => line.clone_from(setting),
            None => lines.push(setting.clone()),
        }
    }
    let heading = "A node of an EMCC federation. Relative paths start from this folder. `emccd config \
                   example` shows every key, `emccd config check --config FILE` what is wrong with a file.";
    Ok(example::compose(heading, &lines))
}

/// A path as a word of a shell command.
fn shell_word(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::config::check_files;

    fn options(folder: &Path) -> InitOptions {
        InitOptions {
            cluster_id: ClusterId::new("munich").unwrap(),
            folder: folder.to_owned(),
            port_base: DEFAULT_PORT_BASE,
            hosts: vec!["emcc.munich.example.org".to_owned(), "localhost".to_owned()],
            settings: Vec::new(),
            now: Timestamp::from_millis(1_780_000_000_000),
        }
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_fresh_folder_holds_all_that_a_node_needs() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("etc/munich");
        let created = create(&options(&folder)).unwrap();
        let config = config::load(&created.config).unwrap();
        check_files(&config, options(&folder).now).unwrap();
        assert_eq!(config.cluster_id.as_str(), "munich");
        assert_eq!(config.federation.listen.port(), 8444);
        assert_eq!(config.phone.listen.port(), 8443);
        assert_eq!(config.phone.plain_listen, None);
        assert_eq!(config.admin.socket, created.folder.join("admin.sock"));
        assert_eq!(config.store.path(), Some(&*created.folder.join("emccd.db")));
        assert_eq!(config.identity.certificate, created.federation_cert);
        assert_eq!(config.phone.identity.certificate, created.phone_cert);
        assert_eq!(mode(&folder), 0o700);
        for secret in [
            &config.identity.key,
            &config.phone.identity.key,
            &config.credentials.pepper_file,
        ] {
            assert_eq!(mode(secret), 0o600, "{}", secret.display());
        }
        let pepper = fs::read(&config.credentials.pepper_file).unwrap();
        assert_eq!(pepper.len(), 32);
        assert_ne!(pepper, [0; 32]);
        assert_eq!(
            created.next,
            format!("emccd run --config {}", created.config.display())
        );
        assert_eq!(created.fingerprint.len(), 95);
    }

    #[test]
    fn the_port_base_moves_all_ports() {
        let parent = tempfile::tempdir().unwrap();
        let mut options = options(&parent.path().join("a"));
        options.port_base = 20_000;
        let created = create(&options).unwrap();
        let text = fs::read_to_string(&created.config).unwrap();
        assert!(text.contains("\nlisten = \"0.0.0.0:20444\"\n"), "{text}");
        assert!(text.contains("\nlisten = \"0.0.0.0:20443\"\n"), "{text}");
        assert!(
            text.contains("\n#plain-listen = \"0.0.0.0:20080\"\n"),
            "{text}"
        );
        options.folder = parent.path().join("b");
        options.port_base = MAX_PORT_BASE + 1;
        assert!(matches!(create(&options).unwrap_err(), Error::PortBase));
        assert!(!options.folder.exists());
    }

    #[test]
    fn further_settings_take_the_place_of_the_usual_ones() {
        let parent = tempfile::tempdir().unwrap();
        let mut options = options(&parent.path().join("x/../a"));
        options.settings = vec![
            Line::new("phone.listen", "\"127.0.0.1:0\""),
            Line::new("credentials.memory-kib", "8"),
        ];
        let config = config::load(&create(&options).unwrap().config).unwrap();
        assert_eq!(config.phone.listen, "127.0.0.1:0".parse().unwrap());
        assert_eq!(config.federation.listen.port(), 8444);
        assert_eq!(config.credentials.memory_kib, 8);
        options.folder = parent.path().join("b");
        options.settings = vec![Line::new("credentials.memory-kib", "7")];
        assert!(matches!(create(&options).unwrap_err(), Error::Unusable(_)));
        assert!(!options.folder.exists());
    }

    #[test]
    fn a_second_time_changes_nothing_and_says_what_to_do() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("a b");
        let created = create(&options(&folder)).unwrap();
        let before = fs::read(&created.config).unwrap();
        let error = create(&options(&folder)).unwrap_err().to_string();
        assert!(error.contains("emccd run --config '/"), "{error}");
        assert_eq!(fs::read(&created.config).unwrap(), before);
    }

    #[test]
    fn a_key_in_the_way_is_kept_and_nothing_else_is_made() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("notes.txt"), "mine").unwrap();
        fs::write(folder.path().join("pepper.key"), "old").unwrap();
        let error = create(&options(folder.path())).unwrap_err();
        assert!(
            matches!(&error, Error::Occupied { file, .. } if file.ends_with("pepper.key")),
            "{error}"
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        fs::remove_file(folder.path().join("pepper.key")).unwrap();
        create(&options(folder.path())).unwrap();
    }

    #[test]
    fn a_failure_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        // A file where the folder of certificates belongs.
        fs::write(folder.path().join("certs"), "").unwrap();
        let error = create(&options(folder.path())).unwrap_err();
        assert!(
            matches!(error, Error::Write { .. } | Error::Occupied { .. }),
            "{error}"
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

        let mut written = Written::default();
        let made = folder.path().join("x/y");
        written.folder(&made).unwrap();
        written
            .file(&made.join("f"), |path| fs::write(path, ""))
            .unwrap();
        drop(written);
        assert!(!folder.path().join("x").exists());
    }

    #[test]
    fn what_can_never_run_is_refused_before_anything_is_written() {
        let parent = tempfile::tempdir().unwrap();
        let deep = parent.path().join("d".repeat(120));
        assert!(matches!(
            create(&options(&deep)).unwrap_err(),
            Error::Unusable(_)
        ));
        assert!(!deep.exists());
        let mut options = options(&parent.path().join("a"));
        options.hosts = vec!["https://a".to_owned()];
        assert!(matches!(create(&options).unwrap_err(), Error::Host(_)));
        assert!(!options.folder.exists());
    }

    #[test]
    fn the_first_file_is_as_recorded() {
        let text = configuration(&options(Path::new("/x"))).unwrap();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/config/valid/init.toml");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, &text).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap_or_default(), text);
    }
}
