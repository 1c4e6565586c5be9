//! The ports: free for a daemon that is to start, or held by the one that runs.

use std::{
    fs,
    io::{self, ErrorKind},
    net::SocketAddr,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::Finding;
use crate::config::Config;

const ID: &str = "port";

/// How long the daemon may take to say that it lives.
const PATIENCE: Duration = Duration::from_secs(3);

/// Looks at every port that the configuration names.
pub(super) async fn check(config: &Config, is_up: bool) -> Vec<Finding> {
    let named = [
        ("federation.listen", Some(config.federation.listen)),
        ("phone.listen", Some(config.phone.listen)),
        ("phone.plain-listen", config.phone.plain_listen),
        ("metrics.listen", config.metrics.listen),
    ];
    let mut found = Vec::new();
    for (key, address) in named {
        let Some(address) = address.filter(|a| a.port() != 0) else {
            continue;
        };
        found.push(judge(key, address, is_up).await.about(key));
    }
    if let Some(address) = config.metrics.listen.filter(|a| is_up && a.port() != 0) {
        found.extend(readiness(address).await);
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

/// What the daemon says of itself to a monitoring system.
async fn readiness(address: SocketAddr) -> Vec<Finding> {
    const ID: &str = "ready";
    let hint = "look into the daemon's log";
    let asked = tokio::time::timeout(PATIENCE, ask(address)).await;
    let text = match asked {
        Ok(Ok(text)) => text,
        Ok(Err(cause)) => {
            return vec![Finding::warning(
                ID,
                format!("the daemon can't be asked at {address}: {cause}"),
                hint,
            )];
        }
        Err(_) => {
            return vec![Finding::error(
                ID,
                format!("the daemon does not answer at {address}"),
                hint,
            )];
        }
    };
    let Some((_, body)) = text.split_once("\r\n\r\n") else {
        return vec![Finding::warning(
            ID,
            format!("what answers at {address} is no daemon of ours"),
            "emccd config show names metrics.listen",
        )];
    };
    let reasons: Vec<_> = body
        .lines()
        .skip(1)
        .map(|line| {
            Finding::error(
                ID,
                line,
                "emccd cluster status, and the daemon's log, have the rest",
            )
        })
        .collect();
    if reasons.is_empty() && body.trim() == "ready" {
        return vec![Finding::ok(ID, "the daemon can serve")];
    }
    reasons
}

async fn ask(address: SocketAddr) -> io::Result<String> {
    /// Far more than there can be reasons.
    const MOST: u64 = 64 * 1_024;
    let mut stream = TcpStream::connect(address).await?;
    stream
        .write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await?;
    let mut text = String::new();
    stream.take(MOST).read_to_string(&mut text).await?;
    Ok(text)
}
