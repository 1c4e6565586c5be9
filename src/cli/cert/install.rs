//! `cert install`: an authority's answer, or a certificate of one's own, checked as a whole and put in its place. The
//! files are written here and a daemon that runs is asked to read them: so it works without one, with every certificate
//! expired.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::certificate_text;
use crate::{
    cli::{
        args::{CertInstall, Global},
        client::{self, Client, answer},
        cluster::shown,
        config::load,
        failure::{Failure, Outcome},
        output::Report,
        stores::read_certificates,
    },
    clock::Clock,
    config::{self, Config},
    domain::purpose::Purpose,
    edge::admin::views,
    trust::{
        answer::{Answer, is_for_key},
        certificate::{Certificate, Fingerprint, fingerprint_text},
        folder::IdentityFolder,
        install::{self, Brought},
        keys::{self, Key},
        make::pem,
    },
    wire::admin as pb,
};

const WHAT: &str = "cannot install the certificate; nothing is changed";

/// Where an installed certificate is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    /// A running daemon shows it.
    InForce,
    /// It is where the configuration has it; no daemon runs.
    Configured,
    /// It is where the configuration has it; the daemon takes it up with another one that is still to be mended.
    Waits,
    /// It is kept beside the one in use.
    Next,
}

#[derive(Debug, Serialize)]
struct Installed {
    state: State,
    purpose: &'static str,
    certificate: pb::Certificate,
    /// What is sent with it.
    chain: Vec<pb::Certificate>,
    certificate_file: PathBuf,
    key_file: PathBuf,
    /// SHA-256 of the one that was configured before and is kept in the folder.
    earlier: Option<String>,
    /// Subjects of what was given and is of no use.
    unused: Vec<String>,
    /// Peers that must trust it.
    peers: Vec<String>,
    /// What the daemon could not take up beside it.
    problem: Option<String>,
}

/// Runs it.
///
/// # Errors
/// Everything in which the answer is not what was asked for; files that can't be read or written; what the daemon
/// refuses, after which the earlier files are in their place again.
pub(super) async fn run(global: &Global, args: &CertInstall, clock: &Clock) -> Outcome {
    let file = global.config.as_deref();
    let config = load(file.unwrap_or_else(|| Path::new(config::FILE_NAME)))?;
    let folder = config.identity_folder();
    let purpose = Purpose::from(args.purpose);
    if folder.files(purpose).is_none() {
        return Err(Failure::new(
            WHAT,
            format!("no {purpose} identity is configured"),
            "give certificate and key their places under [identity.client] in the configuration, and start the node anew",
        ));
    }
    let checked = check(&folder, purpose, args, clock)?;
    // A daemon that can't be asked is found out before anything is written.
    let mut daemon = daemon(global, &config).await?;
    let peers = match &mut daemon {
        Some(client) if purpose != Purpose::Phone => peers(client).await?,
        _ => Vec::new(),
    };
    let is_next = args.next || (!args.now && !peers.is_empty());
    if let Some(client) = daemon.as_mut().filter(|_| !is_next) {
        steady(client, &config.node, purpose, clock).await?;
    }
    let fingerprint = write(&folder, purpose, &checked)?;
    let mut installed = Installed {
        state: State::Next,
        purpose: purpose.as_str(),
        certificate: checked.leaf().map(views::certificate).unwrap_or_default(),
        chain: checked
            .answer
            .chain
            .iter()
            .skip(1)
            .map(views::certificate)
            .collect(),
        certificate_file: folder
            .certificate_file(purpose, &fingerprint)
            .map_err(|cause| failed(&cause))?,
        key_file: checked.key.file.clone(),
        earlier: None,
        unused: checked
            .answer
            .unused
            .iter()
            .map(|c| c.subject().to_owned())
            .collect(),
        peers,
        problem: None,
    };
    if !is_next {
        let earlier = folder
            .configured(purpose)
            .ok()
            .map(|i| i.leaf().fingerprint());
        let earlier = earlier.filter(|earlier| *earlier != fingerprint);
        folder
            .settle(purpose, &fingerprint)
            .map_err(|cause| failed(&cause))?;
        installed.state = State::Configured;
        if let Some(client) = &mut daemon {
            let shown = (&fingerprint, earlier.as_ref());
            (installed.state, installed.problem) =
                reload(client, &folder, (&config.node, purpose), shown, clock).await?;
        }
        if let Some(files) = folder.files(purpose) {
            installed.certificate_file.clone_from(&files.certificate);
            installed.key_file.clone_from(&files.key);
        }
        installed.earlier = earlier.as_ref().map(fingerprint_text);
    }
    Ok(Report::new(text(&installed, args), &installed))
}

/// What was given, found to be right.
struct Checked {
    answer: Answer,
    key: Key,
}

impl Checked {
    fn leaf(&self) -> Option<&Certificate> {
        self.answer.chain.first()
    }
}

fn check(
    folder: &IdentityFolder,
    purpose: Purpose,
    args: &CertInstall,
    clock: &Clock,
) -> Outcome<Checked> {
    let mut given: Vec<Certificate> = Vec::new();
    for file in &args.files {
        given.extend(read_certificates(WHAT, file)?);
    }
    let key = key(folder, purpose, args, &given)?;
    let brought = Brought {
        certificates: &given,
        key: &key,
        names: &args.name,
        may_lack_issuers: args.without_issuers,
    };
    let answer = install::check(folder, purpose, &brought, clock.now()).map_err(|wrong| {
        let all: Vec<_> = wrong.iter().map(ToString::to_string).collect();
        Failure::new(
            WHAT,
            all.join("; and "),
            "mend that and type it again; emccd cert show FILE tells what is in a file",
        )
    })?;
    Ok(Checked { answer, key })
}

fn key(
    folder: &IdentityFolder,
    purpose: Purpose,
    args: &CertInstall,
    given: &[Certificate],
) -> Outcome<Key> {
    let unusable = |cause: &crate::trust::Error| {
        Failure::from_error(
            WHAT,
            cause,
            "mend that, or name another one with --key-file",
        )
    };
    if let Some(file) = &args.key_file {
        return keys::read_key(file).map_err(|cause| unusable(&cause));
    }
    let mut files = keys::keys_beside(&args.files);
    files.extend(
        folder
            .key_files(purpose)
            .map_err(|cause| unusable(&cause))?,
    );
    let stored = folder
        .key_in_store(purpose)
        .map_err(|cause| unusable(&cause));
    let found = match keys::key_of(given, &files).map_err(|cause| unusable(&cause))? {
        Some(key) => Some(key),
        // A request that keytool made is for the key in the key store.
        None => stored?.filter(|key| given.iter().any(|c| is_for_key(c, &key.public_key))),
    };
    found.ok_or_else(|| {
        let subjects: Vec<_> = given.iter().map(Certificate::subject).collect();
        Failure::new(
            WHAT,
            format!(
                "no key here goes with any of these certificates ({}); looked at: {}",
                subjects.join("; "),
                files
                    .iter()
                    .map(|f| shown(f))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
            "name the key that the request was made with: --key-file FILE",
        )
    })
}

fn write(folder: &IdentityFolder, purpose: Purpose, checked: &Checked) -> Outcome<Fingerprint> {
    let pem: String = checked.answer.chain.iter().map(|c| pem(c.der())).collect();
    folder
        .write(purpose, pem.as_bytes(), &checked.key.key_pem)
        .map_err(|cause| failed(&cause))
}

fn failed(cause: &crate::trust::Error) -> Failure {
    let what = "cannot install the certificate; the one in use stays";
    Failure::from_error(
        what,
        cause,
        "check the folder, its permissions and its disk, and type it again",
    )
}

/// The daemon of that configuration, if one runs.
async fn daemon(global: &Global, config: &Config) -> Outcome<Option<Client>> {
    let socket = global
        .socket
        .clone()
        .unwrap_or_else(|| config.admin.socket.clone());
    let there = std::os::unix::net::UnixStream::connect(&socket);
    if let Err(cause) = there
        && matches!(
            cause.kind(),
            std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused
        )
    {
        return Ok(None);
    }
    let to = Global {
        socket: Some(socket),
        ..global.clone()
    };
    client::connect(&to).await.map(Some)
}

async fn peers(client: &mut Client) -> Outcome<Vec<String>> {
    let asked = client.list_clusters(pb::ListClustersRequest {}).await;
    let all = answer(WHAT, asked)?.clusters;
    Ok(all
        .into_iter()
        .filter(|c| c.enabled)
        .map(|c| c.cluster_id)
        .collect())
}

/// Refuses where a rotation says what is shown: what is installed would not be, and would be written over at its end. One of
/// which nothing can be shown any more ends for what is installed.
async fn steady(client: &mut Client, node: &str, purpose: Purpose, clock: &Clock) -> Outcome<()> {
    let asked = client.list_identities(pb::ListIdentitiesRequest {}).await;
    let shown = answer(WHAT, asked)?.identities;
    let mut shown = shown.iter().filter(|it| it.purpose == purpose.as_str());
    let is_good = shown.any(|it| {
        let leaf = it.certificate.as_ref();
        let ends = leaf.and_then(|leaf| leaf.not_after.parse::<jiff::Timestamp>().ok());
        ends.is_some_and(|ends| ends.as_millisecond() >= clock.now().as_millis())
    });
    if !is_good {
        return Ok(());
    }
    match on_record(client, node, purpose).await? {
        Some(on_record) => Err(rotating(&on_record)),
        None => Ok(()),
    }
}

async fn on_record(
    client: &mut Client,
    node: &str,
    purpose: Purpose,
) -> Outcome<Option<pb::Rotation>> {
    let asked = client.list_rotations(pb::ListRotationsRequest {}).await;
    let all = answer(WHAT, asked)?.rotations.into_iter();
    let mut of_it = all.filter(|it| it.node == node && it.purpose == purpose.as_str());
    Ok(of_it.next())
}

fn rotating(it: &pb::Rotation) -> Failure {
    let purpose = match &*it.purpose {
        "federation" => String::new(),
        other => format!(" --purpose {other}"),
    };
    let command = |verb: &str| format!("emccd cert rotate {verb} --node {}{purpose}", it.node);
    let next = match &*it.phase {
        "requested" | "announced" => format!(
            "to go on with that one: {}; to give it up: {}",
            command("activate"),
            command("rollback")
        ),
        "active" => format!(
            "to end that one: {}; to go back: {}",
            command("retire"),
            command("rollback")
        ),
        _ => format!(
            "it waits for peers: emccd cert rotate status; to have this one follow it: {} --from FILE --key-file FILE",
            command("announce")
        ),
    };
    let why = format!(
        "a rotation of {}/{} is on record ({}), and says what is shown",
        it.node, it.purpose, it.phase
    );
    Failure::new(WHAT, why, next)
}

/// Has the daemon take it up. When it refuses this one, the files are as they were, unless what they held has ended: then
/// nothing is gained by that one, and what is shown in each direction may be taken up together alone (where no rotation
/// says what is shown). What it says of another identity is given back.
async fn reload(
    client: &mut Client,
    folder: &IdentityFolder,
    (node, purpose): (&str, Purpose),
    (new, earlier): (&Fingerprint, Option<&Fingerprint>),
    clock: &Clock,
) -> Outcome<(State, Option<String>)> {
    let what = "the daemon does not take the new certificate";
    let asked = client
        .reload_identities(pb::ReloadIdentitiesRequest {})
        .await;
    let (all, refused) = match answer(what, asked) {
        Ok(taken) => (taken.identities, None),
        Err(refused) => {
            let asked = client.list_identities(pb::ListIdentitiesRequest {}).await;
            (answer(what, asked)?.identities, Some(refused))
        }
    };
    if is_shown(&all, purpose, new) {
        let problem = refused.map(|refused| refused.why().to_owned());
        return Ok((State::InForce, problem));
    }
    let now = clock.now();
    let has_ended = |of: &Fingerprint| {
        let found = folder.find(purpose, of);
        found.is_ok_and(|found| found.leaf().not_after() < now)
    };
    if let (Some(refused), true) = (&refused, earlier.is_some_and(has_ended))
        && on_record(client, node, purpose).await?.is_none()
    {
        return Ok((State::Waits, Some(refused.why().to_owned())));
    }
    if let Some(earlier) = earlier {
        folder
            .settle(purpose, earlier)
            .map_err(|cause| failed(&cause))?;
    }
    Err(refused.unwrap_or_else(|| {
        Failure::new(
            what,
            "it goes on to show another one; the files are as they were",
            "what says so: emccd cert rotate status; what is in use: emccd cert show",
        )
    }))
}

fn is_shown(all: &[pb::Identity], purpose: Purpose, wanted: &Fingerprint) -> bool {
    let wanted = fingerprint_text(wanted);
    all.iter().any(|identity| {
        let shown = identity.certificate.as_ref();
        identity.purpose == purpose.as_str() && shown.is_some_and(|c| c.fingerprint == wanted)
    })
}

fn text(installed: &Installed, args: &CertInstall) -> String {
    let mut lines = vec![certificate_text(&installed.certificate)];
    if !installed.chain.is_empty() {
        let subjects: Vec<_> = installed.chain.iter().map(|c| &*c.subject).collect();
        lines.push(format!("sent with it: {}", subjects.join(" > ")));
    }
    for unused in &installed.unused {
        lines.push(format!("not needed: {unused}"));
    }
    let file = shown(&installed.certificate_file);
    if let Some(earlier) = &installed.earlier {
        lines.push(format!(
            "the one from before is kept in identities/: SHA-256 {earlier}"
        ));
    }
    lines.push(match installed.state {
        State::InForce => format!("in use from now on: {file}"),
        State::Configured => format!("written to {file}; no daemon runs, the next start shows it, unless one of a rotation on record can be shown"),
        State::Waits => format!("written to {file}; the daemon takes it up as soon as the other one is mended, too"),
        State::Next => {
            let given: Vec<_> = args.files.iter().map(|f| shown(f)).collect();
            let given = given.join(" ");
            let how = how(installed, args);
            let now = format!("emccd cert install {given}{how} --now");
            if installed.peers.is_empty() {
                format!("kept as {file}; to put it in use: {now}")
            } else {
                format!(
                    "kept as {file}, and not shown yet: first each peer must trust it ({}). Those that can are told by: emccd \
                     cert rotate announce --from {given}{how}; where there is none that can: emccd trust add ID --pin FILE, \
                     typed there, and then here: {now}",
                    installed.peers.join(", ")
                )
            }
        }
    });
    if let Some(problem) = &installed.problem {
        lines.push(format!("still to be mended beside it: {problem}"));
    }
    lines.join("\n\n")
}

/// The options that the same files need again.
fn how(installed: &Installed, args: &CertInstall) -> String {
    let mut how = match installed.purpose {
        "federation" => String::new(),
        other => format!(" --purpose {other}"),
    };
    how += &format!(" --key-file {}", shown(&installed.key_file));
    for name in &args.name {
        how += &format!(" --name {name}");
    }
    if args.without_issuers {
        how += " --without-issuers";
    }
    how
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs};

    use super::*;
    use crate::{
        cli::args::Purpose as Typed,
        config::init::{self, DEFAULT_PORT_BASE},
        secret::Secret,
        trust::{
            fixtures::{Authority, Leaf, Spec},
            identity::Identity,
            make,
        },
    };

    struct Node {
        dir: tempfile::TempDir,
        global: Global,
    }

    impl Node {
        /// A node's files as `init` makes them. No daemon runs.
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let options = init::InitOptions {
                cluster_id: "berlin".parse().unwrap(),
                folder: dir.path().join("berlin"),
                port_base: DEFAULT_PORT_BASE,
                hosts: vec!["a.example".to_owned()],
                settings: Vec::new(),
                now: Clock::system().now(),
            };
            let created = init::create(&options).unwrap();
            let global = Global {
                config: Some(created.config),
                ..Global::default()
            };
            Self { dir, global }
        }

        fn put(&self, name: &str, content: &str) -> PathBuf {
            let path = self.dir.path().join(name);
            make::write_private(&path, &Secret::new(content.as_bytes().to_vec())).unwrap();
            path
        }

        async fn install(&self, args: &CertInstall) -> Outcome {
            run(&self.global, args, &Clock::system()).await
        }

        fn certs(&self) -> BTreeMap<PathBuf, Vec<u8>> {
            let folder = self.dir.path().join("berlin/certs");
            let files = [folder.join("identities"), folder]
                .into_iter()
                .flat_map(|folder| {
                    let entries = fs::read_dir(folder).into_iter().flatten();
                    entries
                        .map(|entry| entry.unwrap().path())
                        .collect::<Vec<_>>()
                });
            files
                .filter(|path| path.is_file())
                .map(|path| (path.clone(), fs::read(path).unwrap()))
                .collect()
        }
    }

    fn args(files: Vec<PathBuf>) -> CertInstall {
        CertInstall {
            files,
            purpose: Typed::Federation,
            key_file: None,
            name: Vec::new(),
            without_issuers: false,
            now: false,
            next: false,
        }
    }

    fn signed(spec: Spec) -> (Authority, Leaf) {
        let ca = Authority::new("CA");
        let leaf = spec.dns("localhost").ip("127.0.0.1").signed_by(&ca);
        (ca, leaf)
    }

    #[tokio::test]
    async fn without_a_daemon_an_answer_is_put_in_its_place_and_the_earlier_pair_is_kept() {
        let node = Node::new();
        let (ca, leaf) = signed(Spec::new("a.example"));
        let files = vec![
            node.put("ca.pem", &ca.pem()),
            node.put("answer.pem", &leaf.pem()),
        ];
        node.put("next.key", &leaf.key_pem());
        // The one that is configured has this machine's name as well.
        let args = |files| CertInstall {
            name: vec!["a.example".to_owned()],
            ..args(files)
        };
        let kept = CertInstall {
            next: true,
            ..args(files.clone())
        };
        let before = Identity::from_files(
            &node.dir.path().join("berlin/certs/federation.pem"),
            &node.dir.path().join("berlin/certs/federation.key"),
        );
        let before = before.unwrap().leaf().fingerprint_text();
        let report = node.install(&kept).await.unwrap();
        assert_eq!(report.json["state"], "next");
        let given: Vec<_> = files.iter().map(|f| shown(f)).collect();
        let key = shown(&node.dir.path().join("next.key"));
        let command = format!(
            "emccd cert install {} --key-file {key} --name a.example --now",
            given.join(" ")
        );
        assert!(report.text.contains(&command), "{}", report.text);
        let report = node.install(&args(files)).await.unwrap();
        assert_eq!(report.json["state"], "configured");
        assert_eq!(report.json["earlier"], before);
        let body = leaf.key_pem().lines().nth(1).unwrap().to_owned();
        let told = report.text + &report.json.to_string();
        assert!(!told.contains(&body), "the key was printed");
        let folder = load(node.global.config.as_ref().unwrap())
            .unwrap()
            .identity_folder();
        let configured = folder.configured(Purpose::Federation).unwrap();
        assert_eq!(configured.leaf(), &leaf.certificate());
        assert_eq!(configured.chain().len(), 1, "the root is not sent");
        let both = folder.list(Purpose::Federation).unwrap();
        assert_eq!(both.len(), 2, "{both:?}");
    }

    #[tokio::test]
    async fn what_is_not_right_is_told_and_changes_nothing() {
        let node = Node::new();
        let before = node.certs();
        let (ca, leaf) = signed(Spec::new("a.example"));
        let (other_ca, expired) = signed(Spec::new("a.example").valid_days(-20, -10));
        let (server_ca, server) = signed(Spec::new("a.example").eku(false, true));
        let file = |name: &str, text: String| node.put(name, &text);
        let answer = file("answer.pem", leaf.pem());
        let authority = file("ca.pem", ca.pem());
        let key = file("ours.secret", leaf.key_pem());
        let with_key = |files: &[&PathBuf], key: &Path| CertInstall {
            key_file: Some(key.to_owned()),
            ..args(files.iter().map(|f| (*f).clone()).collect())
        };
        let locked =
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let locked = file("locked.secret", locked.to_owned());
        let expired_key = file("expired.secret", expired.key_pem());
        let expired = file("expired.pem", expired.pem() + &other_ca.pem());
        let server_key = file("server.secret", server.key_pem());
        let server = file("server.pem", server.pem() + &server_ca.pem());
        let with_name = CertInstall {
            name: vec!["other.example".to_owned()],
            ..with_key(&[&answer, &authority], &key)
        };
        for (typed, parts) in [
            (
                args(vec![answer.clone()]),
                &["no key here goes with", "--key-file"][..],
            ),
            (
                with_key(&[&answer], &key),
                &["not complete", "CN=CA", "--without-issuers"],
            ),
            (
                with_key(&[&answer, &authority], &server_key),
                &["none of the certificates is for that key"],
            ),
            (with_key(&[&answer, &authority], &locked), &["encrypted"]),
            (with_key(&[&expired], &expired_key), &["expired at"]),
            (
                with_key(&[&server], &server_key),
                &["clientAuth", "[identity.client]"],
            ),
            (with_name, &["not for other.example", "--name"]),
            (with_key(&[&answer, &key], &key), &["and no certificate"]),
            (
                CertInstall {
                    purpose: Typed::FederationClient,
                    ..with_key(&[&answer, &authority], &key)
                },
                &[
                    "no federation-client identity is configured",
                    "[identity.client]",
                ],
            ),
        ] {
            let refused = node.install(&typed).await.unwrap_err().to_string();
            for part in parts {
                assert!(refused.contains(part), "{part}: {refused}");
            }
            assert_eq!(node.certs(), before, "{refused}");
        }
    }
}
