//! PINs, private keys and the pepper are seen nowhere: in no log at the most talkative level, no error, no page, no
//! answer to an operator, no `Debug`, and not in the database.
//!
//! A federation of processes is driven through good, bad and broken requests. Then everything that it wrote or
//! answered is searched for every secret, as it is and in the forms in which programs print bytes.

use std::{
    collections::BTreeMap,
    fmt::{Debug, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use emccd::{
    domain::{ids::DeviceName, login::LoginType},
    lab::{Cluster, Hosting, Lab, Spec, dataset::User, member::Member},
    wire::{admin, pb},
};
use regex::bytes::{Regex, RegexBuilder};
use rustls_pki_types::{ServerName, pem::PemObject};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::support::{
    binary,
    raw_peer::{self, call, channel, peer_client},
    tls::client_config,
};

const HOME: usize = 0;
const VISITING: usize = 1;
const USERS: [&str; 4] = ["ana", "bob", "eva", "ida"];
const FORM: &str = "/emapp/EMAppServlet";

// ---- the search ------------------------------------------------------------------------------------------------

/// Finds secrets in whatever form.
struct Scanner {
    regex: Regex,
    /// The secret's name by the bytes that were found.
    names: BTreeMap<Vec<u8>, String>,
}

impl Scanner {
    fn new(secrets: &[(String, Vec<u8>)]) -> Self {
        let mut names = BTreeMap::new();
        for (name, secret) in secrets {
            assert!(
                secret.len() >= 15,
                "{name} is so short that it may stand somewhere by chance"
            );
            for form in forms(secret) {
                names.insert(form, name.clone());
            }
        }
        let escaped = names.keys().map(|form| {
            form.iter().fold(String::new(), |mut text, byte| {
                write!(text, "\\x{byte:02x}").unwrap();
                text
            })
        });
        let pattern = format!("(?s-u){}", escaped.collect::<Vec<_>>().join("|"));
        let regex = RegexBuilder::new(&pattern)
            .size_limit(256 << 20)
            .build()
            .unwrap();
        Self { regex, names }
    }

    /// The name of a secret that is in `bytes`, with what stands around it.
    fn find(&self, bytes: &[u8]) -> Option<String> {
        let found = self.regex.find(bytes)?;
        let name = &self.names[found.as_bytes()];
        let around = &bytes[found.start().saturating_sub(200)..bytes.len().min(found.end() + 50)];
        Some(format!("{name} in …{}…", String::from_utf8_lossy(around)))
    }

    /// Everything below `folder` but sockets and what `skip` names; gives the findings and the number of bytes.
    fn search(&self, folder: &Path, skip: &dyn Fn(&Path) -> bool) -> (Vec<String>, usize) {
        let (mut findings, mut size) = (Vec::new(), 0);
        for path in files(folder) {
            if skip(&path) {
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            size += bytes.len();
            findings.extend(
                self.find(&bytes)
                    .map(|found| format!("{}: {found}", path.display())),
            );
        }
        (findings, size)
    }
}

/// How a secret may be written: as it is, in hex, in base64 wherever it begins, as a list of numbers, escaped.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let joined = |form: &dyn Fn(&u8) -> String, between: &str| {
        secret
            .iter()
            .map(form)
            .collect::<Vec<_>>()
            .join(between)
            .into_bytes()
    };
    let mut all = vec![
        secret.to_vec(),
        joined(&|b| format!("{b:02x}"), ""),
        joined(&|b| format!("{b:02X}"), ""),
        joined(&|b| format!("{b:02X}"), ":"),
        joined(&|b| format!("{b:02x}"), " "),
        joined(&|b| b.to_string(), ", "),
        joined(&|b| b.to_string(), ","),
        joined(&|b| format!("%{b:02X}"), ""),
        joined(&|b| format!("\\x{b:02x}"), ""),
        joined(&|b| b.escape_ascii().to_string(), ""),
        format!("{:?}", bytes::Bytes::copy_from_slice(secret))
            .trim_matches(|c| c == 'b' || c == '"')
            .into(),
    ];
    // Without the letters that the bytes before and after have a part in.
    for (before, letters) in [(0, 0), (1, 2), (2, 3)] {
        let padded = [vec![0; before], secret.to_vec()].concat();
        let text = base64(&padded);
        let inner = &text[letters..padded.len() / 3 * 4];
        all.push(inner.as_bytes().to_vec());
        all.push(inner.replace('+', "-").replace('/', "_").into_bytes());
    }
    all
}

/// Without padding.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .chain([0, 0].iter())
            .take(3)
            .fold(0_usize, |word, byte| word << 8 | usize::from(*byte));
        for letter in 0..=chunk.len() {
            text.push(char::from(LETTERS[word >> (18 - 6 * letter) & 63]));
        }
    }
    text
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files(&entry.path()));
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    found
}

/// The private number of a P-256 key in PKCS#8, and the line of the PEM text that has most of it.
fn key_secrets(member: &Member, key: &Path) -> Vec<(String, Vec<u8>)> {
    let pem = std::fs::read_to_string(key).unwrap();
    let line = pem.lines().nth(2).unwrap().as_bytes().to_vec();
    let der = rustls_pki_types::PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    let der = der.secret_pkcs8_der();
    // What stands before it is the same in each such key, and ends with the tag and the length of the number.
    assert_eq!(
        &der[34..36],
        [0x04, 0x20],
        "{} is no P-256 key in PKCS#8",
        key.display()
    );
    let name = format!("the key {} of {}", key.display(), member.name);
    vec![(name.clone(), der[36..68].to_vec()), (name, line)]
}

// ---- what is said ----------------------------------------------------------------------------------------------

/// Everything that came back from anywhere.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<Answer>>>);

/// Who said it, and what.
type Answer = (String, Vec<u8>);

impl Heard {
    fn bytes(&self, from: &str, bytes: impl Into<Vec<u8>>) {
        self.0.lock().unwrap().push((from.to_owned(), bytes.into()));
    }

    fn debug(&self, from: &str, value: &impl Debug) {
        self.bytes(from, format!("{value:?}\n{value:#?}"));
    }

    fn error(&self, from: &str, outcome: anyhow::Result<impl Debug>) {
        let error = outcome.expect_err(from);
        self.bytes(from, format!("{error}\n{error:#}\n{error:?}"));
    }
}

/// Runs the command line and keeps what it prints. Whether it succeeds is not of interest; that it ends is, and
/// that it was understood: what is refused as wrong usage shows nothing of what it would have said.
async fn command(heard: &Heard, member: &Member, line: &str, args: &[&Path]) {
    let mut command = tokio::process::Command::new(binary());
    command
        .arg("--config")
        .arg(&member.config)
        .args(line.split_whitespace())
        .args(args);
    command
        .env("EMCCD_LOG", "trace")
        .env("RUST_BACKTRACE", "1")
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(60), command.output())
        .await
        .expect(line)
        .unwrap();
    assert!(
        !(output.stdout.is_empty() && output.stderr.is_empty()),
        "{line} says nothing"
    );
    assert!(
        matches!(output.status.code(), Some(0 | 1)),
        "{line}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    heard.bytes(line, output.stdout);
    heard.bytes(line, output.stderr);
}

/// One request as bytes, over TLS or in the clear to the same port; all that comes back.
async fn raw_http(heard: &Heard, member: &Member, tls: bool, request: &str) {
    let address = member.addresses.phone.trim_start_matches("https://");
    let stream = TcpStream::connect(address).await.unwrap();
    if !tls {
        return exchange(heard, stream, request).await;
    }
    let config = client_config(&member.ca_file, None, rustls::DEFAULT_VERSIONS);
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    exchange(
        heard,
        connector
            .connect(ServerName::try_from("localhost").unwrap(), stream)
            .await
            .unwrap(),
        request,
    )
    .await;
}

async fn exchange(
    heard: &Heard,
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    request: &str,
) {
    let mut answer = Vec::new();
    // The other side may hang up in the middle: that is an answer too.
    let talk = async {
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        stream.read_to_end(&mut answer).await
    };
    let ended = tokio::time::timeout(Duration::from_secs(15), talk).await;
    heard.bytes("HTTP", format!("{ended:?}"));
    heard.bytes("HTTP", answer);
}

/// Sends bytes as they are in place of a message.
struct AsTheyAre;

impl Codec for AsTheyAre {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for AsTheyAre {
    type Item = Vec<u8>;
    type Error = tonic::Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl Decoder for AsTheyAre {
    type Item = Vec<u8>;
    type Error = tonic::Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, tonic::Status> {
        let left = bytes::Buf::remaining(buffer);
        Ok(Some(bytes::Buf::copy_to_bytes(buffer, left).to_vec()))
    }
}

// ---- the play --------------------------------------------------------------------------------------------------

/// A PIN that stands nowhere by chance. Digits only: it must also fit where a number is.
fn new_pin() -> String {
    format!(
        "{}",
        rand::random_range(100_000_000_000_000_000_u64..1_000_000_000_000_000_000)
    )
}

/// The scene: a lab at trace level, and every PIN that is ever typed in it.
struct Scene {
    lab: Lab,
    heard: Heard,
    pins: Vec<(String, Vec<u8>)>,
    /// For files to hand in; not searched.
    inputs: tempfile::TempDir,
}

impl Scene {
    async fn set() -> Self {
        let inputs = tempfile::tempdir().unwrap();
        let mut pins = Vec::new();
        for (number, cluster) in ["berlin", "tokyo"].into_iter().enumerate() {
            let mut toml = String::new();
            for user in USERS {
                let pin = new_pin();
                writeln!(toml, "[[user]]\nid = \"{user}.{cluster}\"\nextension = \"{user}-{cluster}\"\npin = \"{pin}\"").unwrap();
                writeln!(
                    toml,
                    "[[profile]]\nname = \"{user}-{cluster}\"\nuser = \"{user}.{cluster}\""
                )
                .unwrap();
                writeln!(toml, "[[device]]\nname = \"SEP{number:04X}-{user}\"").unwrap();
                pins.push((format!("the PIN of {user}.{cluster}"), pin.into_bytes()));
            }
            writeln!(toml, "[[base-device]]\nname = \"EMCC\"\ncount = 4").unwrap();
            std::fs::write(inputs.path().join(format!("{cluster}.toml")), toml).unwrap();
        }
        let spec = Spec {
            hosting: Hosting::Processes { binary: binary() },
            data: Some(inputs.path().to_owned()),
            settings: vec![("log".to_owned(), "level = \"trace\"".to_owned())],
            ..Spec::default()
        };
        Self {
            lab: Lab::start(&spec).await.unwrap(),
            heard: Heard::default(),
            pins,
            inputs,
        }
    }

    /// A PIN that somebody types although it is nobody's: it may be right elsewhere.
    fn typed(&mut self, why: &str) -> String {
        let pin = new_pin();
        self.pins
            .push((format!("the PIN typed for {why}"), pin.clone().into_bytes()));
        pin
    }

    fn home(&self) -> &Cluster {
        &self.lab.clusters[HOME]
    }

    fn visiting(&self) -> &Cluster {
        &self.lab.clusters[VISITING]
    }

    fn user(&self, index: usize) -> User {
        self.home().data.user(index).unwrap().clone()
    }

    fn input(&self, name: &str, text: &str) -> PathBuf {
        let path = self.inputs.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Logins and logouts as they should be, and as they often are.
    async fn phones(&mut self) {
        let wrong = self.typed("a wrong login");
        for (cluster, foreign) in [(VISITING, true), (HOME, false)] {
            let phone = self.lab.clusters[cluster]
                .member()
                .unwrap()
                .phone()
                .unwrap();
            let device = self.lab.clusters[cluster]
                .data
                .phone(0)
                .unwrap()
                .name
                .clone();
            let user = self.user(0);
            let right = phone
                .login(&device, Some(LoginType::Uid), &user.user_id, &user.pin)
                .await
                .unwrap();
            assert_eq!(right.em_code, None, "{}", right.text);
            self.heard.debug("login", &right);
            self.heard.debug(
                "occupied",
                &phone
                    .login_at_once(&device, None, &user.user_id, &user.pin)
                    .await
                    .unwrap(),
            );
            self.heard
                .debug("logout", &phone.logout(&device).await.unwrap());
            let extension = phone
                .login(&device, Some(LoginType::Extension), "ana-berlin", &user.pin)
                .await
                .unwrap();
            assert_eq!(
                extension.em_code, None,
                "foreign: {foreign}: {}",
                extension.text
            );
            self.heard
                .debug("logout", &phone.logout(&device).await.unwrap());
            for (device, user) in [
                (device.as_str(), user.user_id.as_str()),
                (&device, "nobody"),
                ("SEPNONE", "nobody"),
            ] {
                let shown = phone
                    .login_at_once(device, None, user, &wrong)
                    .await
                    .unwrap();
                assert!(shown.em_code.is_some());
                self.heard.debug("refused", &shown);
            }
        }
        let (phone, ben) = (
            self.visiting().member().unwrap().phone().unwrap(),
            self.user(1),
        );
        let device = &self.visiting().data.phone(1).unwrap().name;
        for _ in 0..6 {
            self.heard.debug(
                "guess",
                &phone
                    .login_at_once(device, None, &ben.user_id, &wrong)
                    .await
                    .unwrap(),
            );
        }
        let locked = phone
            .login_at_once(device, None, &ben.user_id, &ben.pin)
            .await
            .unwrap();
        assert_eq!(locked.em_code, Some(2));
        self.heard.debug("locked", &locked);
    }

    /// Requests with a PIN in them that break every rule there is.
    async fn broken_requests(&mut self) {
        let pin = self.typed("broken requests");
        let filler = "x".repeat(60_000);
        let member = self.visiting().member().unwrap();
        let phone = member.phone().unwrap();
        let start = format!("{FORM}?device=SEP0001-ana&EMCC=true&userid=ana.berlin");
        for query in [
            format!("{start}&seq={pin}%ZZ"),
            format!("{start}&seq={pin}%00"),
            format!("{start}&seq={pin}%FF%FE"),
            format!("{start}&seq={pin}&seq={pin}"),
            format!("{start}&seq={pin}&pad={filler}"),
            format!("{start}&seq={}", pin.repeat(10)),
            format!("{start}&seq={pin}&loginType=XX"),
            format!("{start}&unknown={pin}"),
            format!("{FORM}?seq={pin}"),
            format!("{FORM}?device=%20&userid=a&seq={pin}"),
            format!("/emapp/Other?seq={pin}"),
            format!("/{pin}?seq={pin}"),
            format!("{start}&seq={pin}&doLogout=true"),
        ] {
            self.heard
                .bytes("query", format!("{:?}", phone.raw_get(&query).await));
            self.heard
                .bytes("query", format!("{:?}", phone.head(&query).await));
        }
        let close = "Host: phone\r\nConnection: close\r\n";
        for request in [
            format!(
                "POST {start}&seq={pin} HTTP/1.1\r\n{close}Content-Length: {}\r\n\r\nseq={pin}",
                pin.len() + 4
            ),
            format!("BREW {start}&seq={pin} HTTP/1.1\r\n{close}\r\n"),
            format!("GET {start}&seq={pin} HTTP/7.0\r\n{close}\r\n"),
            format!("GET {start}&seq={pin} and more HTTP/1.1\r\n{close}\r\n"),
            format!("GET {start}&seq={pin}\0 HTTP/1.1\r\n{close}\r\n"),
            format!("GET {start}&seq={pin} HTTP/1.1\r\n{close}Broken {pin}\r\n\r\n"),
            format!(
                "GET {start} HTTP/1.1\r\n{close}Cookie: seq={pin}\r\nReferer: {start}&seq={pin}\r\n\r\n"
            ),
            format!("GET {start} HTTP/1.1\r\n{close}X-Long: {pin}{filler}{filler}\r\n\r\n"),
            format!("GET {start}&seq={pin}{filler}{filler} HTTP/1.1\r\n{close}\r\n"),
            format!("{pin}\r\n\r\n"),
        ] {
            for tls in [true, false] {
                raw_http(&self.heard, member, tls, &request).await;
            }
        }
    }

    /// A peer that sends a PIN where it does not belong, or more than a message may hold.
    async fn broken_calls(&mut self) {
        let pin = self.typed("broken calls");
        let (home, visiting) = (self.home(), self.visiting());
        let mut client = peer_client(visiting, home);
        let good = raw_peer::login(raw_peer::new_id(), &self.user(2), "SEPFFFFFFFFFFFF");
        self.heard.debug("a message", &good);
        let answer = client.login(call(visiting, good.clone())).await;
        assert!(answer.is_ok(), "{answer:?}");
        self.heard.debug("an answer", &answer);
        let mut broken: Vec<pb::LoginRequest> = (0..6).map(|_| good.clone()).collect();
        broken[0].pin = format!("{pin}\n");
        broken[1].pin = pin.repeat(20);
        broken[2].ticket.clone_from(&pin);
        broken[3].pin = pin.repeat(100_000);
        broken[4].device = None;
        broken[5].session_id = Vec::new();
        for request in broken {
            self.heard.debug(
                "a refusal",
                &client.login(call(visiting, request)).await.unwrap_err(),
            );
        }
        let mut encoded = prost::Message::encode_to_vec(&good);
        encoded.truncate(encoded.len() - 3);
        let not_utf8 = [b"\x22\x14".as_slice(), pin.as_bytes(), b"\xff\xfe"].concat();
        let mut grpc = tonic::client::Grpc::new(channel(visiting, home));
        for bytes in [encoded, not_utf8, pin.clone().into_bytes()] {
            grpc.ready().await.unwrap();
            let path =
                http::uri::PathAndQuery::from_static("/emcc.federation.v1.FederationService/Login");
            let refusal = grpc
                .unary(call(visiting, bytes), path, AsTheyAre)
                .await
                .unwrap_err();
            self.heard.debug("a refusal", &refusal);
        }
    }

    /// What an operator asks, and files that can't be applied.
    async fn operators(&mut self) {
        let pin = self.typed("files to apply");
        let member = self.home().member().unwrap();
        let mut admin = self.home().admin().await.unwrap();
        let user = "[[user]]\nid = \"mia.berlin\"\n";
        let long = pin.repeat(20);
        for (number, text) in [
            format!("{user}pin = {pin}\n"),
            format!("{user}pin = -{pin}.5\n"),
            format!("{user}pin = [\"{pin}\"]\n"),
            format!("{user}pin = {{ value = \"{pin}\" }}\n"),
            format!("{user}pin = \"{pin}\n"),
            format!("{user}pin = \"{pin}\" trailing\n"),
            format!("{user}pin = \"{pin}\"\npin = \"{pin}\"\n"),
            format!("{user}pin = \"{long}\"\n"),
            format!("{user}pin = \"{pin}\\u0000\"\n"),
            format!("{user}pin_hash = \"{pin}\"\n"),
            format!("{user}pin-hash = \"{pin}\"\n"),
            format!("{user}pin-hash = \"$argon2id$v=19$m={pin},t=1,p=1$AAAAAAAAAAA\"\n"),
            format!(
                "{user}pin = \"{pin}\"\npin-hash = \"$argon2id$v=19$m={pin},t=1,p=1$AAAAAAAAAAA\"\n"
            ),
            format!("{user}pin = \"{pin}\"\nenabled = \"{pin}\"\n"),
            format!("{user}pin = \"{pin}\"\nunknown-key = 1\n"),
            format!("{user}pin = \"{pin}\"\n{user}pin = \"{pin}\"\n"),
            format!("{user}pin = '''\n{pin}'''\n[[profile]]\nname = \"p\"\nuser = \"nobody\"\n"),
            format!("{user}\"{pin}\n"),
        ]
        .into_iter()
        .enumerate()
        {
            let file = admin::ApplyFile {
                name: "users.toml".to_owned(),
                content: text.clone(),
            };
            let request = admin::ApplyRequest {
                files: vec![file],
                dry_run: number % 2 == 0,
            };
            self.heard.debug("a request", &request);
            self.heard.error(&text, admin.apply(request).await);
            let path = self.input(&format!("users-{number}.toml"), &text);
            command(&self.heard, member, "apply", &[&path]).await;
            command(&self.heard, member, "--json apply --dry-run", &[&path]).await;
        }
        let path = self.input("good.toml", &format!("{user}pin = \"{pin}\"\n"));
        command(&self.heard, member, "apply", &[&path]).await;
        for line in [
            "config show",
            "config check",
            "cluster status",
            "--json cluster status",
            "cluster list",
            "trust list",
            "cert show",
            "--json cert show",
            "user list",
            "--json user list",
            "user show ana.berlin",
            "--json user show bob.berlin",
            "device list",
            "base list",
            "session list --all",
            "--json session list --all",
            "session logout --device SEPFFFFFFFFFFFF --yes",
        ] {
            command(&self.heard, member, line, &[]).await;
        }
        self.heard.debug(
            "user",
            &admin
                .user(admin::GetUserRequest {
                    user_id: "ana.berlin".to_owned(),
                })
                .await
                .unwrap(),
        );
    }

    /// The command that acts as a phone, where it works and where it does not.
    async fn phone_command(&mut self) {
        let (user, wrong) = (self.user(3), self.typed("the phone command"));
        let member = self.visiting().member().unwrap();
        let (url, ca) = (
            member.addresses.phone.clone(),
            member.ca_file.display().to_string(),
        );
        let right = self.input("right.pin", &format!("{}\n", user.pin));
        let wrong_file = self.input("wrong.pin", &format!("{wrong}\n"));
        let two_lines = self.input("long.pin", &format!("{}\n", wrong.repeat(30)));
        let target = format!(
            "--device SEP0001-ida --ca {ca} --user {} --pin-file",
            user.user_id
        );
        command(
            &self.heard,
            member,
            &format!("phone login {url} {target}"),
            &[&right],
        )
        .await;
        command(
            &self.heard,
            member,
            &format!("phone logout {url} --device SEP0001-ida --ca {ca}"),
            &[],
        )
        .await;
        for pin in [&wrong_file, &two_lines] {
            command(
                &self.heard,
                member,
                &format!("phone login {url} {target}"),
                &[pin],
            )
            .await;
            command(
                &self.heard,
                member,
                &format!("phone login https://127.0.0.1:9 {target}"),
                &[pin],
            )
            .await;
            command(
                &self.heard,
                member,
                &format!("--json phone login https://no.such.host.test:1 {target}"),
                &[pin],
            )
            .await;
        }
        // Somebody takes the wrong option for the PIN: it must at least not be repeated.
        let key = member.federation_key.clone();
        command(
            &self.heard,
            member,
            &format!("phone login {url} {target}"),
            &[&key],
        )
        .await;
    }

    /// Keys where certificates belong, and key files that are broken when they are read again.
    async fn keys(&mut self) {
        let member = self.home().member().unwrap();
        let mut admin = self.home().admin().await.unwrap();
        let key = &member.federation_key;
        let pem = std::fs::read_to_string(key).unwrap();
        for line in [
            "cert show",
            "trust add tokyo --pin",
            "trust add tokyo --anchor",
            "apply",
        ] {
            command(&self.heard, member, line, &[key]).await;
        }
        command(
            &self.heard,
            member,
            "cluster add lima --address 127.0.0.1:1 --trust",
            &[key],
        )
        .await;
        let material = admin::TrustMaterial {
            kind: "pinned".to_owned(),
            certificates: pem.clone().into_bytes(),
        };
        let request = admin::AddTrustRequest {
            cluster_id: "tokyo".to_owned(),
            trust: Some(material),
        };
        self.heard
            .error("a key as trust", admin.add_trust(request).await);

        let lines: Vec<_> = pem.lines().collect();
        let body = lines[1..lines.len() - 1].join("\n");
        let mut refused = 0;
        for (broken, mode) in [
            (pem[..pem.len() / 2].to_owned(), 0o600),
            (pem.replace('M', "!"), 0o600),
            (body.clone(), 0o600),
            (pem.replace("PRIVATE KEY", "CERTIFICATE"), 0o600),
            (pem.replace("PRIVATE KEY", "EC PRIVATE KEY"), 0o600),
            (
                format!("{}\n{body}\nAAAA\n{}", lines[0], lines[lines.len() - 1]),
                0o600,
            ),
            (pem.clone(), 0o644),
        ] {
            std::fs::write(key, &broken).unwrap();
            std::fs::set_permissions(key, std::fs::Permissions::from_mode(mode)).unwrap();
            // A wrong label or a tail is overlooked by some readers of keys; that is no matter here.
            let outcome = admin.reload(admin::ReloadIdentitiesRequest {}).await;
            refused += usize::from(outcome.is_err());
            self.heard.debug("reload", &outcome);
            command(&self.heard, member, "cert reload", &[]).await;
            command(&self.heard, member, "cert show", &[]).await;
            command(&self.heard, member, "cert show", &[key]).await;
        }
        assert!(refused >= 5, "only {refused} broken key files were refused");
        std::fs::write(key, &pem).unwrap();
        std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o600)).unwrap();
        admin
            .reload(admin::ReloadIdentitiesRequest {})
            .await
            .unwrap();

        // Somebody puts the key itself where its path belongs.
        let config = std::fs::read_to_string(&member.config).unwrap();
        for with in [
            format!("'''{pem}'''"),
            format!("\"{}\"", pem.replace('\n', "\\n")),
            format!("\"{pem}\""),
        ] {
            let path = self.input("emccd.toml", &config.replace("\"federation.key\"", &with));
            for line in [
                "config check --config",
                "config show --config",
                "run --config",
            ] {
                let mut command = tokio::process::Command::new(binary());
                command
                    .args(line.split_whitespace())
                    .arg(&path)
                    .kill_on_drop(true);
                let output = tokio::time::timeout(Duration::from_secs(60), command.output())
                    .await
                    .unwrap()
                    .unwrap();
                assert!(!output.status.success(), "{line} takes a key for a path");
                self.heard.bytes(line, output.stdout);
                self.heard.bytes(line, output.stderr);
            }
        }
    }

    /// What anyone on the machine can read of the processes.
    fn process_lists(&self) {
        for cluster in &self.lab.clusters {
            let pid = cluster.member().unwrap().pid().unwrap();
            for file in ["cmdline", "environ", "status", "comm"] {
                self.heard
                    .bytes(file, std::fs::read(format!("/proc/{pid}/{file}")).unwrap());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pins_keys_and_pepper_are_seen_nowhere() {
    let mut scene = Scene::set().await;
    let mut others = Vec::new();
    for cluster in &scene.lab.clusters {
        let member = cluster.member().unwrap();
        others.extend(key_secrets(member, &member.federation_key));
        others.extend(key_secrets(member, &member.folder.join("phone.key")));
        let pepper = std::fs::read(member.folder.join("../pepper")).unwrap();
        others.push((format!("the pepper of {}", cluster.id), pepper));
    }
    scene.phones().await;
    scene.broken_requests().await;
    scene.broken_calls().await;
    scene.operators().await;
    scene.phone_command().await;
    scene.keys().await;
    scene.process_lists();

    let Scene {
        mut lab,
        heard,
        pins,
        ..
    } = scene;
    for cluster in &mut lab.clusters {
        cluster.member_mut().unwrap().stop().await;
    }
    let (pins, others) = (Scanner::new(&pins), Scanner::new(&others));
    for cluster in &lab.clusters {
        let log = std::fs::read_to_string(cluster.member().unwrap().log_file()).unwrap();
        assert!(
            log.contains("TRACE") && log.contains("ana.berlin"),
            "the log tells too little to prove anything"
        );
    }
    // A PIN is nowhere at all; a key and the pepper are in their own files.
    let (mut findings, size) = pins.search(lab.folder(), &|_| false);
    assert!(size > 100_000, "only {size} bytes were written");
    let own =
        |path: &Path| path.extension().is_some_and(|e| e == "key") || path.ends_with("pepper");
    findings.extend(others.search(lab.folder(), &own).0);
    for (from, bytes) in heard.0.lock().unwrap().iter() {
        for scanner in [&pins, &others] {
            findings.extend(
                scanner
                    .find(bytes)
                    .map(|found| format!("answer to {from:.60}: {found}")),
            );
        }
    }
    assert!(
        findings.is_empty(),
        "{} secrets were seen:\n{}",
        findings.len(),
        findings.join("\n---\n")
    );

    // The same search finds what is there.
    let keys = others.search(lab.folder(), &|path| !own(path)).0;
    assert_eq!(
        keys.len(),
        6,
        "two keys and a pepper of each cluster: {keys:?}"
    );
}

#[test]
fn the_search_finds_a_planted_secret_in_every_form() {
    let folder = tempfile::tempdir().unwrap();
    let (pin, key) = (new_pin(), rand::random::<[u8; 32]>());
    let scanner = Scanner::new(&[
        ("pin".to_owned(), pin.clone().into_bytes()),
        ("key".to_owned(), key.to_vec()),
    ]);
    let url = url::form_urlencoded::byte_serialize(pin.as_bytes()).collect::<String>();
    let mut planted = vec![
        format!("2030-01-01 INFO GET {FORM}?seq={url}&x").into_bytes(),
        format!("{:?}", pin.as_bytes()).into_bytes(),
        format!("{:?}", bytes::Bytes::copy_from_slice(&key)).into_bytes(),
        format!("Secret({key:02x?})")
            .replace(", ", " ")
            .into_bytes(),
        key.map(|b| format!("{b:02X}")).join(":").into_bytes(),
    ];
    for before in 0..4 {
        let text = [vec![7; before], key.to_vec(), vec![9; 5]].concat();
        planted.push(format!("value={}", base64(&text)).into_bytes());
        planted.push([b"\0\xff\xfe".as_slice(), &text].concat());
    }
    for (number, bytes) in planted.iter().enumerate() {
        assert!(
            scanner.find(bytes).is_some(),
            "not found: {}",
            String::from_utf8_lossy(bytes)
        );
        std::fs::create_dir_all(folder.path().join("deep")).unwrap();
        std::fs::write(folder.path().join(format!("deep/{number}.db")), bytes).unwrap();
    }
    assert_eq!(
        scanner.search(folder.path(), &|_| false).0.len(),
        planted.len()
    );
    for innocent in [
        "",
        "271828",
        &pin[1..],
        &base64(b"something else that is long enough to be encoded"),
    ] {
        assert_eq!(scanner.find(innocent.as_bytes()), None);
    }
    assert_eq!(base64(b"any carnal pleas"), "YW55IGNhcm5hbCBwbGVhcw");
}

#[test]
fn no_debug_prints_a_pin_or_a_key() {
    use emccd::{
        domain::login::{DeviceFacts, FindUser, LoginRequest, Proof, SecurityMode},
        secret::{Pin, Secret},
    };
    let pin = new_pin();
    let scanner = Scanner::new(&[("pin".to_owned(), pin.clone().into_bytes())]);
    let typed = || Pin::new(pin.clone()).unwrap();
    let request = LoginRequest {
        session_id: raw_peer::new_id(),
        user: FindUser {
            login_type: LoginType::Uid,
            name: "ana".parse().unwrap(),
        },
        proof: Proof::Pin(typed()),
        profile: None,
        device: DeviceFacts {
            name: DeviceName::new("SEP1").unwrap(),
            model: String::new(),
            protocol: String::new(),
            security_mode: SecurityMode::NonSecure,
            address: None,
        },
        geolocation: BTreeMap::new(),
        supersedes: Vec::new(),
    };
    let mut message = pb::LoginRequest::default();
    message.pin.clone_from(&pin);
    message.ticket.clone_from(&pin);
    let file = admin::ApplyFile {
        name: "users.toml".to_owned(),
        content: format!("pin = \"{pin}\""),
    };
    let rows = emccd::apply::file::User {
        id: "ana".to_owned(),
        self_service_id: None,
        extension: None,
        name: String::new(),
        pin: Some(pin.clone()),
        pin_hash: Some(pin.clone()),
        enabled: true,
        emcc: true,
    };
    let source = emccd::apply::Source {
        name: "users.toml".to_owned(),
        text: format!("pin = \"{pin}\"").into(),
    };
    let parts: [(&str, &dyn Debug); 7] = [
        ("Pin", &typed()),
        ("Secret", &Secret::new(pin.clone().into_bytes())),
        ("LoginRequest", &request),
        ("pb::LoginRequest", &message),
        ("ApplyFile", &file),
        ("file::User", &rows),
        ("Source", &source),
    ];
    for (name, part) in parts {
        let printed = format!("{part:?}{part:#?}");
        assert_eq!(scanner.find(printed.as_bytes()), None, "{name}");
        assert!(!printed.is_empty());
    }
}
