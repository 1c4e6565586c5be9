//! The play: a federation, and everything that people and programs do to it with secrets in their hands.

use super::*;

/// A PIN that stands nowhere by chance. Digits only: it must also fit where a number is.
pub(super) fn new_pin() -> String {
    format!(
        "{}",
        rand::random_range(100_000_000_000_000_000_u64..1_000_000_000_000_000_000)
    )
}

/// The scene: a lab at trace level, and every PIN that is ever typed in it.
pub(super) struct Scene {
    pub(super) lab: Lab,
    pub(super) heard: Heard,
    pub(super) pins: Vec<(String, Vec<u8>)>,
    /// For files to hand in; not searched.
    pub(super) inputs: tempfile::TempDir,
}

impl Scene {
    pub(super) async fn set() -> Self {
        let inputs = tempfile::tempdir().unwrap();
        let mut pins = Vec::new();
        for (number, cluster) in ["berlin", "tokyo"].into_iter().enumerate() {
            // So long that none can stand anywhere by chance.
            let mut toml =
                "[[policy]]\nname = \"default\"\nmax-length = 64\ntrivial-check = false\n"
                    .to_owned();
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
    pub(super) fn typed(&mut self, why: &str) -> String {
        let pin = new_pin();
        self.pins
            .push((format!("the PIN typed for {why}"), pin.clone().into_bytes()));
        pin
    }

    pub(super) fn home(&self) -> &Cluster {
        &self.lab.clusters[HOME]
    }

    pub(super) fn visiting(&self) -> &Cluster {
        &self.lab.clusters[VISITING]
    }

    pub(super) fn user(&self, index: usize) -> User {
        self.home().data.user(index).unwrap().clone()
    }

    pub(super) fn input(&self, name: &str, text: &str) -> PathBuf {
        let path = self.inputs.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Logins and logouts as they should be, and as they often are.
    pub(super) async fn phones(&mut self) {
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
    pub(super) async fn broken_requests(&mut self) {
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
    pub(super) async fn broken_calls(&mut self) {
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
    /// What a monitoring system is told.
    pub(super) async fn figures(&self) {
        for cluster in &self.lab.clusters {
            let address = &cluster.member().unwrap().addresses.metrics;
            let address = address.trim_start_matches("http://");
            for path in ["/metrics", "/readyz", "/healthz", "/"] {
                let stream = TcpStream::connect(address).await.unwrap();
                let request =
                    format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
                exchange(&self.heard, stream, &request).await;
            }
        }
        let heard = self.heard.0.lock().unwrap();
        let figures: Vec<_> = heard
            .iter()
            .map(|(_, bytes)| String::from_utf8_lossy(bytes))
            .filter(|text| text.contains("# TYPE emccd_logins counter"))
            .collect();
        assert_eq!(figures.len(), self.lab.clusters.len());
        for text in figures {
            assert!(text.contains("outcome=\"success\""), "{text}");
            for name in ["ana.berlin", "ana@berlin", "SEP0", "1001"] {
                assert!(!text.contains(name), "{name} is in {text}");
            }
        }
    }

    pub(super) async fn operators(&mut self) {
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
                ..admin::ApplyRequest::default()
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
            "session list --owed",
            "session retry --peer tokyo",
            "session drop 7K3Q-9M2X --yes",
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
    pub(super) async fn phone_command(&mut self) {
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
    pub(super) async fn keys(&mut self) {
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
            unrevoke: None,
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
    pub(super) fn process_lists(&self) {
        for cluster in &self.lab.clusters {
            let pid = cluster.member().unwrap().pid().unwrap();
            for file in ["cmdline", "environ", "status", "comm"] {
                match std::fs::read(format!("/proc/{pid}/{file}")) {
                    Ok(bytes) => self.heard.bytes(file, bytes),
                    // The daemon has closed it to all but root.
                    Err(closed) if file == "environ" => {
                        assert_eq!(closed.kind(), std::io::ErrorKind::PermissionDenied);
                    }
                    Err(error) => panic!("{file}: {error}"),
                }
            }
        }
    }
}
