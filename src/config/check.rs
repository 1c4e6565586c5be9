//! From the keys of a file to a [`Config`]: kinds, ranges, defaults, and what must fit together.
//!
//! Every key is looked at even when an earlier one was wrong, so that all problems come at once.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    config::{
        Admin, Config, Credentials, Federation, Groups, IdentityFiles, Log, LogFormat, Login,
        Metrics, Phone, Problem, Problems, Setting, Store,
        file::{self, Given, Value, quoted},
        keys::{self, KEYS, Key, Preset},
        units::show_duration,
        values::{self, Read, is_node},
    },
    domain::login::SecurityMode,
    trust::key_store::KeyStore,
};

/// Checks the text of the file `path` on a machine called `host`.
pub(super) fn check(text: &str, path: &Path, host: Option<&str>) -> Result<Config, Problems> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let parsed = file::parse(text);
    if parsed.given.is_empty() && !parsed.problems.is_empty() {
        // Broken syntax: nothing was found, and calling every required key missing would hide why.
        return Err(Problems::new(&path, parsed.problems));
    }
    let folder = path.parent().unwrap_or_else(|| Path::new("/")).to_owned();
    let mut reader = Reader {
        given: parsed.given,
        problems: parsed.problems,
        settings: Vec::new(),
        folder,
        host: host.unwrap_or("localhost").to_owned(),
    };
    let config = reader.config(&path);
    match config {
        Some(mut config) if reader.problems.is_empty() => {
            reader
                .settings
                .sort_by_key(|s| KEYS.iter().position(|k| k.name == s.key));
            config.settings = reader.settings;
            Ok(config)
        }
        _ => Err(Problems::new(&path, reader.problems)),
    }
}

/// The longest path that a Unix socket can have on Linux, the closing NUL not counted.
const MAX_SOCKET_PATH_BYTES: usize = 107;

/// The keys by which one identity is given.
struct IdentityKeys {
    certificate: &'static str,
    key: &'static str,
    store: &'static str,
    password: &'static str,
    key_password: &'static str,
    alias: &'static str,
}

const FEDERATION: IdentityKeys = IdentityKeys {
    certificate: "identity.certificate",
    key: "identity.key",
    store: "identity.key-store",
    password: "identity.key-store-password-file",
    key_password: "identity.key-password-file",
    alias: "identity.key-alias",
};

const CLIENT: IdentityKeys = IdentityKeys {
    certificate: "identity.client.certificate",
    key: "identity.client.key",
    store: "identity.client.key-store",
    password: "identity.client.key-store-password-file",
    key_password: "identity.client.key-password-file",
    alias: "identity.client.key-alias",
};

const PHONE: IdentityKeys = IdentityKeys {
    certificate: "phone.certificate",
    key: "phone.key",
    store: "phone.key-store",
    password: "phone.key-store-password-file",
    key_password: "phone.key-password-file",
    alias: "phone.key-alias",
};

/// Takes keys one by one; remembers what was wrong and what is in force.
struct Reader {
    given: BTreeMap<&'static str, Given>,
    problems: Vec<Problem>,
    settings: Vec<Setting>,
    folder: PathBuf,
    host: String,
}

impl Reader {
    fn config(&mut self, path: &Path) -> Option<Config> {
        let version = self.count("version");
        let cluster_id = self.take("cluster-id", values::cluster_id, |id| quoted(id.as_str()));
        let node = self.node();
        let shutdown_grace = self.duration("shutdown-grace");
        let federation = self.federation();
        let identity = self.identity_files(&FEDERATION);
        let client_identity = self.client_identity();
        let phone = self.phone();
        let admin = self.admin();
        let metrics = self.take(
            "metrics.listen",
            values::address_or_off,
            show_address_or_off,
        );
        let crl_folder = self.optional_path("trust.crl-folder");
        let store = self.take("store.url", values::store_url, |url| quoted(url));
        let credentials = self.credentials();
        let login = self.login();
        let log = self.log();
        if let (Some(federation), Some(phone)) = (&federation, &phone) {
            self.ports_must_differ(federation, phone, metrics.flatten());
        }
        version?;
        Some(Config {
            file: path.to_owned(),
            folder: self.folder.clone(),
            cluster_id: cluster_id?,
            node: node?,
            shutdown_grace: shutdown_grace?,
            federation: federation?,
            identity: identity?,
            client_identity: client_identity?,
            phone: phone?,
            admin: admin?,
            metrics: Metrics { listen: metrics? },
            crl_folder: crl_folder?,
            store: store.map(|url| Store { url })?,
            credentials: credentials?,
            login: login?,
            log: log?,
            settings: Vec::new(),
        })
    }

    fn node(&mut self) -> Option<String> {
        let name = if is_node(&self.host) && self.host != "localhost" {
            self.host.clone()
        } else {
            "node-1".to_owned()
        };
        self.take_or("node", values::node, |n| quoted(n), name)
    }

    fn federation(&mut self) -> Option<Federation> {
        let listen = self.address("federation.listen");
        let advertise = self.take("federation.advertise", values::addresses, |a| show_list(a));
        let heartbeat = self.duration("federation.heartbeat");
        let dead_after = self.duration("federation.dead-after");
        let connect_timeout = self.duration("federation.connect-timeout");
        let reconnect_cap = self.duration("federation.reconnect-cap");
        let security_mode = self.word("federation.security-mode");
        let max_connections = self.count("federation.max-connections");
        if let (Some(beat), Some(dead)) = (heartbeat, dead_after)
            && dead <= beat
        {
            let beat = show_duration(beat);
            let reason = format!("must be longer than federation.heartbeat, which is {beat}");
            self.conflict("federation.dead-after", reason);
        }
        Some(Federation {
            listen: listen?,
            advertise: advertise?,
            heartbeat: heartbeat?,
            dead_after: dead_after?,
            connect_timeout: connect_timeout?,
            reconnect_cap: reconnect_cap?,
            security_mode: match security_mode? {
                "secure" => SecurityMode::Secure,
                _ => SecurityMode::NonSecure,
            },
            max_connections: to_usize(max_connections?),
        })
    }

    /// Both files, a key store, or none.
    fn client_identity(&mut self) -> Option<Option<IdentityFiles>> {
        if let Some(stored) = self.key_store(&CLIENT)? {
            return Some(Some(stored));
        }
        let IdentityKeys {
            certificate, key, ..
        } = CLIENT;
        for (given, missing) in [(certificate, key), (key, certificate)] {
            if self.given.contains_key(given) && !self.given.contains_key(missing) {
                self.conflict(missing, format!("is missing, and {given} is given"));
                return None;
            }
        }
        let (certificate, key) = (self.optional_path(certificate)?, self.optional_path(key)?);
        let files = certificate
            .zip(key)
            .map(|(certificate, key)| IdentityFiles {
                certificate,
                key,
                store: None,
            });
        Some(files)
    }

    /// The key store in the place of two files, where one is given; `None` when something about it is wrong.
    fn key_store(&mut self, keys: &IdentityKeys) -> Option<Option<IdentityFiles>> {
        let beside = [keys.password, keys.key_password, keys.alias];
        let (apart, with_it) = match self.given.contains_key(keys.store) {
            true => (&[keys.certificate, keys.key][..], "is given, and so is"),
            false => (&beside[..], "is of no use without"),
        };
        let wrong: Vec<_> = apart
            .iter()
            .filter(|key| self.given.contains_key(*key))
            .collect();
        for key in &wrong {
            self.conflict(key, format!("{with_it} {}", keys.store));
        }
        let file = self.optional_path(keys.store);
        let password_file = self.optional_path(keys.password);
        let key_password_file = self.optional_path(keys.key_password);
        let alias = self.optional(keys.alias, values::alias, |alias| quoted(alias));
        let store = KeyStore {
            password_file: password_file?,
            key_password_file: key_password_file?,
            alias: alias?,
        };
        let file = file.filter(|_| wrong.is_empty())?;
        if file.is_some() {
            self.remember(keys.certificate, None, true);
            self.remember(keys.key, None, true);
        }
        Some(file.map(|file| IdentityFiles {
            certificate: file.clone(),
            key: file,
            store: Some(store),
        }))
    }

    fn phone(&mut self) -> Option<Phone> {
        let listen = self.address("phone.listen");
        let plain_listen = self.take(
            "phone.plain-listen",
            values::address_or_off,
            show_address_or_off,
        );
        let identity = self.identity_files(&PHONE);
        let max_connections = self.count("phone.max-connections");
        // Phones of a whole site may stand behind one address.
        let half = max_connections.unwrap_or_default().div_ceil(2);
        let per_address = self.take_or(
            "phone.max-connections-per-address",
            values::count,
            ToString::to_string,
            half,
        );
        Some(Phone {
            listen: listen?,
            plain_listen: plain_listen?,
            identity: identity?,
            max_connections: to_usize(max_connections?),
            max_connections_per_address: to_usize(per_address?),
        })
    }

    fn admin(&mut self) -> Option<Admin> {
        let socket = self.path("admin.socket");
        if let Some(length) = socket.as_ref().map(|s| s.as_os_str().len())
            && length > MAX_SOCKET_PATH_BYTES
        {
            let reason = format!(
                "is {length} bytes long as an absolute path, and a socket's can have \
                 {MAX_SOCKET_PATH_BYTES}"
            );
            self.conflict("admin.socket", reason);
        }
        let admin = self.groups("admin.groups.admin");
        let certificates = self.groups("admin.groups.certificates");
        let help_desk = self.groups("admin.groups.help-desk");
        let viewer = self.groups("admin.groups.viewer");
        Some(Admin {
            socket: socket?,
            groups: Groups {
                admin: admin?,
                certificates: certificates?,
                help_desk: help_desk?,
                viewer: viewer?,
            },
        })
    }

    fn credentials(&mut self) -> Option<Credentials> {
        let pepper_file = self.path("credentials.pepper-file");
        let memory_kib = self.count("credentials.memory-kib");
        let iterations = self.count("credentials.iterations");
        let parallelism = self.count("credentials.parallelism");
        let queue = self.count("credentials.queue");
        if let (Some(memory), Some(lanes)) = (memory_kib, parallelism)
            && memory < lanes.saturating_mul(8)
        {
            let reason =
                format!("must be at least 8 per lane of credentials.parallelism ({lanes})");
            self.conflict("credentials.memory-kib", reason);
        }
        Some(Credentials {
            pepper_file: pepper_file?,
            memory_kib: memory_kib?,
            iterations: iterations?,
            parallelism: parallelism?,
            queue: to_usize(queue?),
        })
    }

    fn login(&mut self) -> Option<Login> {
        let deadline = self.duration("login.deadline");
        let find_deadline = self.duration("login.find-deadline");
        if let (Some(whole), Some(part)) = (deadline, find_deadline)
            && part > whole
        {
            let whole = show_duration(whole);
            let reason = format!("must not be longer than login.deadline, which is {whole}");
            self.conflict("login.find-deadline", reason);
        }
        Some(Login {
            deadline: deadline?,
            find_deadline: find_deadline?,
        })
    }

    fn log(&mut self) -> Option<Log> {
        let level = self.word("log.level");
        let format = self.word("log.format");
        Some(Log {
            level: level?.to_owned(),
            format: match format? {
                "json" => LogFormat::Json,
                _ => LogFormat::Text,
            },
        })
    }

    /// One socket of a machine serves one purpose; a wildcard address holds all others of its port.
    fn ports_must_differ(
        &mut self,
        federation: &Federation,
        phone: &Phone,
        metrics: Option<SocketAddr>,
    ) {
        let clash = |a: SocketAddr, b: SocketAddr| {
            let same = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
            a.port() == b.port() && a.port() != 0 && same
        };
        if clash(phone.listen, federation.listen) {
            self.conflict("phone.listen", "takes the port of federation.listen");
        }
        let mut taken = vec![
            ("federation.listen", federation.listen),
            ("phone.listen", phone.listen),
        ];
        for (key, address) in [
            ("phone.plain-listen", phone.plain_listen),
            ("metrics.listen", metrics),
        ] {
            let Some(address) = address else { continue };
            for (name, _) in taken.iter().filter(|(_, other)| clash(address, *other)) {
                self.conflict(key, format!("takes the port of {name}"));
            }
            taken.push((key, address));
        }
    }
}

fn show_address_or_off(address: &Option<SocketAddr>) -> String {
    quoted(&address.map_or_else(|| "off".to_owned(), |a| a.to_string()))
}

/// One function per kind of key.
impl Reader {
    fn address(&mut self, name: &'static str) -> Option<SocketAddr> {
        self.take(name, values::address, |a| quoted(&a.to_string()))
    }

    fn count(&mut self, name: &'static str) -> Option<u32> {
        self.take(name, values::count, ToString::to_string)
    }

    fn duration(&mut self, name: &'static str) -> Option<Duration> {
        self.take(name, values::duration, |d| quoted(&show_duration(*d)))
    }

    fn groups(&mut self, name: &'static str) -> Option<Vec<String>> {
        self.take(name, values::groups, |list| show_list(list))
    }

    fn identity_files(&mut self, keys: &IdentityKeys) -> Option<IdentityFiles> {
        if let Some(stored) = self.key_store(keys)? {
            return Some(stored);
        }
        let (certificate, key) = (self.path(keys.certificate), self.path(keys.key));
        Some(IdentityFiles {
            certificate: certificate?,
            key: key?,
            store: None,
        })
    }

    fn path(&mut self, name: &'static str) -> Option<PathBuf> {
        self.take(name, values::path, |p| quoted(&p.to_string_lossy()))
    }

    fn optional_path(&mut self, name: &'static str) -> Option<Option<PathBuf>> {
        self.optional(name, values::path, |p| quoted(&p.to_string_lossy()))
    }

    /// `Some(None)` when the file doesn't give it, `None` when what it gives is wrong.
    fn optional<T>(
        &mut self,
        name: &'static str,
        read: Read<T>,
        show: fn(&T) -> String,
    ) -> Option<Option<T>> {
        if self.given.contains_key(name) {
            let key = self.key(name)?;
            return self.choose(key, read, show, None).map(Some);
        }
        self.remember(name, None, true);
        Some(None)
    }

    fn word(&mut self, name: &'static str) -> Option<&'static str> {
        self.take(name, values::word, |w| quoted(w))
    }

    /// The value of a key, or its fixed preset.
    fn take<T>(&mut self, name: &'static str, read: Read<T>, show: fn(&T) -> String) -> Option<T> {
        let key = self.key(name)?;
        let preset = match key.preset {
            Preset::Is(literal) => read(&Value::from_literal(literal), key, &self.folder).ok(),
            Preset::Otherwise { .. } | Preset::Required { .. } => None,
        };
        if preset.is_none() && !self.given.contains_key(name) {
            let missing = Problem::new(name, "is missing").with_allowed(key.kind.allowed());
            self.problems.push(missing);
            return None;
        }
        self.choose(key, read, show, preset)
    }

    /// The value of a key, or something that depends on other things.
    fn take_or<T>(
        &mut self,
        name: &'static str,
        read: Read<T>,
        show: fn(&T) -> String,
        otherwise: T,
    ) -> Option<T> {
        let key = self.key(name)?;
        self.choose(key, read, show, Some(otherwise))
    }

    fn choose<T>(
        &mut self,
        key: &'static Key,
        read: Read<T>,
        show: fn(&T) -> String,
        preset: Option<T>,
    ) -> Option<T> {
        let preset_text = preset.as_ref().map(show);
        let value = match self.given.get(key.name) {
            None => preset,
            Some(given) => match read(&given.value, key, &self.folder) {
                Ok(value) => Some(value),
                Err(reason) => {
                    self.refuse(key.name, reason);
                    None
                }
            },
        };
        if let Some(value) = &value {
            let text = show(value);
            let is_default = preset_text.as_ref() == Some(&text);
            self.remember(key.name, Some(text), is_default);
        }
        value
    }

    fn remember(&mut self, key: &'static str, value: Option<String>, default: bool) {
        let line = self.given.get(key).map(|g| g.line);
        self.settings.push(Setting {
            key,
            value,
            default,
            line,
        });
    }

    fn key(&mut self, name: &'static str) -> Option<&'static Key> {
        let key = keys::find(name);
        if key.is_none() {
            self.problems
                .push(Problem::new(name, "is not in the list of keys"));
        }
        key
    }

    /// Reports a value that is wrong in itself.
    fn refuse(&mut self, name: &'static str, reason: impl Into<String>) {
        let problem = self.problem(name, reason);
        let allowed = keys::find(name).map(|key| key.kind.allowed());
        self.problems.push(Problem { allowed, ..problem });
    }

    /// Reports a value that is good in itself but doesn't go with another one.
    fn conflict(&mut self, name: &'static str, reason: impl Into<String>) {
        let problem = self.problem(name, reason);
        self.problems.push(problem);
    }

    /// A problem of a key, with what the file gives for it where that may be shown.
    fn problem(&self, name: &'static str, reason: impl Into<String>) -> Problem {
        let given = self.given.get(name);
        let mut problem = Problem::new(name, reason).on_line(given.map(|g| g.line));
        if let Some(key) = keys::find(name) {
            let value = match given {
                Some(given) => key.kind.may_be_shown().then(|| shortened(&given.value)),
                None => match key.preset {
                    Preset::Is(literal) => Some(format!("{literal} (the default)")),
                    Preset::Otherwise { .. } | Preset::Required { .. } => None,
                },
            };
            problem = problem.with_value(value);
        }
        problem
    }
}

fn show_list<T: ToString>(items: &[T]) -> String {
    let items: Vec<_> = items.iter().map(|i| quoted(&i.to_string())).collect();
    format!("[{}]", items.join(", "))
}

fn shortened(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 80 {
        return text;
    }
    text.chars().take(79).chain(['…']).collect()
}

fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
