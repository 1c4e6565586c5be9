//! The ports: free for a daemon that is to start, or held by the one that runs.

use std::{
    fs,
    io::{self, ErrorKind},
    net::SocketAddr,
    time::Duration,
};

use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::{Finding, Level};
use crate::config::Config;

const ID: &str = "port";

const METRICS: &str = "metrics.listen";

/// How long the daemon may take to say that it lives.
const PATIENCE: Duration = Duration::from_secs(3);

/// Looks at every port that the configuration names.
pub(super) async fn check(config: &Config, is_up: bool) -> Vec<Finding> {
    let named = [
        ("federation.listen", Some(config.federation.listen)),
        ("phone.listen", Some(config.phone.listen)),
        ("phone.plain-listen", config.phone.plain_listen),
        (METRICS, config.metrics.listen),
    ];
    let mut found = Vec::new();
    for (key, address) in named {
        let Some(address) = address.filter(|a| a.port() != 0) else {
            continue;
        };
        let mut port = judge(key, address, is_up).await;
        let of_daemon = if is_up && key == METRICS && port.level == Level::Ok {
            readiness(config, address, &mut port).await
        } else {
            Vec::new()
        };
        found.push(port.about(key));
        found.extend(of_daemon);
    }
    found
}

async fn judge(key: &str, address: SocketAddr, is_up: bool) -> Finding {
    // As the daemon would bind it. It is closed again at once, before anybody could connect.
    let bound = TcpListener::bind(address).await.map(drop);
    let by = || owner(address.port()).map_or_else(String::new, |name| format!(" by {name}"));
    match bound {
        Ok(()) if is_up => Finding::error(
            ID,
            format!("nothing listens on {address}, although a daemon runs"),
            "restart the daemon: it was started with another configuration, or lost the port",
        ),
        Ok(()) => Finding::ok(ID, format!("{address} is free")),
        Err(cause) if cause.kind() == ErrorKind::AddrInUse => {
            if is_up {
                // A daemon does not start without its ports; of the one for figures it tells itself.
                Finding::ok(ID, format!("{address} is served{}", by()))
            } else {
                let hint = format!(
                    "ss -tlnp 'sport = :{}' names the program; end it, or set {key} to another port",
                    address.port()
                );
                Finding::error(ID, format!("{address} is taken{}", by()), hint)
            }
        }
        Err(cause) => unusable(key, address, &cause),
    }
}

fn unusable(key: &str, address: SocketAddr, cause: &io::Error) -> Finding {
    let hint = match cause.kind() {
        ErrorKind::PermissionDenied => {
            "run emccd doctor as the daemon's own user; ports below 1024 need CAP_NET_BIND_SERVICE"
                .to_owned()
        }
        _ => format!("set {key} to an address of this machine: ip address show"),
    };
    Finding::error(ID, format!("{address} can't be listened on: {cause}"), hint)
}

/// The program that listens on a port, as far as we may see it.
fn owner(port: u16) -> Option<String> {
    /// State of a socket that listens, in the kernel's tables.
    const LISTENS: &str = "0A";
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .find_map(|table| {
            let table = fs::read_to_string(table).ok()?;
            table.lines().skip(1).find_map(|line| {
                let fields: Vec<_> = line.split_whitespace().collect();
                let (_, at) = fields.get(1)?.rsplit_once(':')?;
                let is_it =
                    u16::from_str_radix(at, 16) == Ok(port) && fields.get(3) == Some(&LISTENS);
                is_it.then(|| fields.get(9).map(|inode| format!("socket:[{inode}]")))?
            })
        })?;
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let files = fs::read_dir(process.path().join("fd")).ok()?;
        let holds = |file: fs::DirEntry| {
            fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == inode.as_str())
        };
        if !files.flatten().any(holds) {
            return None;
        }
        let name = fs::read_to_string(process.path().join("comm")).ok()?;
        Some(name.trim().to_owned())
    })
}

/// What answers at the address for figures and health.
enum Answer {
    /// The daemon of this configuration, with why it can't serve.
    Ours(Vec<String>),
    /// Somebody else.
    Other(String),
    /// Nobody, and why.
    None(String),
}

/// What the daemon says of itself to a monitoring system, and whether it is the daemon that says so: it does without
/// a port that somebody else has.
async fn readiness(config: &Config, address: SocketAddr, port: &mut Finding) -> Vec<Finding> {
    const READY: &str = "ready";
    let what = match tokio::time::timeout(PATIENCE, ask(address)).await {
        Ok(Ok(text)) => judge_answer(config, &text),
        Ok(Err(cause)) => Answer::None(cause.to_string()),
        Err(_) => Answer::None(format!(
            "it does not answer within {} s",
            PATIENCE.as_secs()
        )),
    };
    match what {
        Answer::Ours(reasons) if reasons.is_empty() => {
            vec![Finding::ok(READY, "the daemon can serve")]
        }
        Answer::Ours(reasons) => {
            let hint = "emccd cluster status, and the daemon's log, have the rest";
            let all = reasons.into_iter();
            all.map(|why| Finding::error(READY, why, hint)).collect()
        }
        Answer::Other(who) => {
            let by = owner(address.port()).map_or_else(String::new, |name| format!(" ({name})"));
            let text =
                format!("{address} is held by {who}{by}: no figures of this node are served");
            let hint = format!(
                "ss -tlnp 'sport = :{}' names the program; end it, or set metrics.listen to another port",
                address.port()
            );
            *port = Finding::warning(ID, text, hint);
            Vec::new()
        }
        Answer::None(why) => {
            let text = format!("what listens on {address} can't be asked: {why}");
            vec![Finding::warning(READY, text, "look into the daemon's log")]
        }
    }
}

fn judge_answer(config: &Config, text: &str) -> Answer {
    let none_of_ours = || Answer::Other("another program".to_owned());
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return none_of_ours();
    };
    let status = head.split_ascii_whitespace().nth(1);
    let Ok(told) = serde_json::from_str::<Told>(body) else {
        return none_of_ours();
    };
    if status != Some(if told.ready { "200" } else { "503" }) {
        return none_of_ours();
    }
    if told.cluster != config.cluster_id.as_str() || told.node != config.node {
        return Answer::Other(format!("{} of cluster {}", told.node, told.cluster));
    }
    let reasons = told.reasons.into_iter();
    Answer::Ours(reasons.map(|r| format!("{}: {}", r.id, r.text)).collect())
}

/// `/readyz?format=json`.
#[derive(Deserialize)]
struct Told {
    ready: bool,
    cluster: String,
    node: String,
    reasons: Vec<Reason>,
}

#[derive(Deserialize)]
struct Reason {
    id: String,
    text: String,
}

async fn ask(address: SocketAddr) -> io::Result<String> {
    /// Far more than there can be reasons.
    const MOST: u64 = 64 * 1_024;
    let mut stream = TcpStream::connect(address).await?;
    let request =
        b"GET /readyz?format=json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await?;
    let mut text = Vec::new();
    stream.take(MOST).read_to_end(&mut text).await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
