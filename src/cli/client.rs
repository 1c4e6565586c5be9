//! The other end of the admin socket.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::Instant};
use tonic::{
    Response, Status,
    transport::{Channel, Endpoint},
};
use tower::service_fn;

use crate::{
    cli::{
        args::Global,
        failure::{Failure, Outcome},
    },
    config,
    edge::admin::socket,
    wire::admin::admin_service_client::AdminServiceClient,
};

/// Calls of the admin service.
pub type Client = AdminServiceClient<Channel>;

/// Finds the socket: as given, or that of the configuration, or the usual one.
///
/// # Errors
/// [`Failure`] when the configuration that was named can't be read.
pub fn socket_path(global: &Global) -> Outcome<PathBuf> {
    if let Some(socket) = &global.socket {
        return Ok(socket.clone());
    }
    match &global.config {
        Some(file) => config::load(file)
            .map(|config| config.admin.socket)
            .map_err(|problems| {
                Failure::from_error(
                    format!("cannot read the configuration {}", file.display()),
                    &problems,
                    "correct it, or name the socket itself with --socket",
                )
            }),
        None => Ok(PathBuf::from(socket::Config::DEFAULT_PATH)),
    }
}

/// Connects to the daemon.
///
/// # Errors
/// [`Failure`] that says whether there is no daemon, or no permission.
pub async fn connect(global: &Global) -> Outcome<Client> {
    let path = socket_path(global)?;
    let stream = open(&path, global.wait.unwrap_or_default()).await;
    let stream = stream.map_err(|cause| unreachable(&path, &cause))?;
    let mut stream = Some(TokioIo::new(stream));
    // The name is for HTTP's sake; the connector below has the only stream there is.
    let channel = Endpoint::from_static("http://admin.invalid")
        .timeout(PATIENCE)
        .connect_with_connector(service_fn(move |_| {
            let stream = stream.take().ok_or(io::ErrorKind::NotConnected);
            std::future::ready(stream.map_err(io::Error::from))
        }))
        .await
        .map_err(|cause| {
            Failure::from_error(
                format!("cannot talk to the daemon at {}", path.display()),
                &cause,
                "check that the socket is that of emccd, and look at the daemon's log",
            )
        })?;
    Ok(Client::new(channel)
        .max_decoding_message_size(MAX_ANSWER_BYTES)
        .max_encoding_message_size(MAX_REQUEST_BYTES))
}

/// Opens the socket. Where no daemon is, it looks again until `patience` is over.
async fn open(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let deadline = Instant::now() + patience;
    loop {
        let connected = tokio::time::timeout(CONNECT, UnixStream::connect(path)).await;
        let outcome = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match &outcome {
            Err(cause) if may_be_starting(cause) && Instant::now() < deadline => {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            _ => return outcome,
        }
    }
}

/// No socket yet, or one that was left behind by the daemon before.
fn may_be_starting(cause: &io::Error) -> bool {
    matches!(
        cause.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

/// Turns an answer into what the command works with; `what` says what could not be done.
///
/// # Errors
/// [`Failure`] with the daemon's own reason.
pub fn answer<T>(what: impl Into<String>, answer: Result<Response<T>, Status>) -> Outcome<T> {
    answer
        .map(Response::into_inner)
        .map_err(|status| Failure::from_status(what, &status))
}

fn unreachable(path: &Path, cause: &io::Error) -> Failure {
    let path = path.display();
    let what = format!("cannot reach the daemon at {path}");
    match cause.kind() {
        io::ErrorKind::NotFound => Failure::new(
            what,
            "there is no such socket, so no daemon runs with it",
            "start the daemon with: emccd run --config FILE; or name its socket with --socket PATH, or its configuration with --config FILE",
        ),
        io::ErrorKind::ConnectionRefused => Failure::new(
            what,
            "the socket is left over from a daemon that has ended",
            "start the daemon with: emccd run --config FILE",
        ),
        io::ErrorKind::PermissionDenied => Failure::new(
            what,
            "this user may not open the socket",
            "run the command as root, as the daemon's own user, or as a member of the socket's group",
        ),
        _ => Failure::from_error(
            what,
            cause,
            "look whether the daemon hangs, in its log and with: ss -xlp",
        ),
    }
}

/// Nothing tells when a socket appears; nobody notices this delay.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// On one machine this takes microseconds, unless the daemon is stopped.
const CONNECT: Duration = Duration::from_secs(3);

/// Longer than the daemon's own longest limit, so that its reason is what is shown.
const PATIENCE: Duration = Duration::from_secs(16 * 60);

/// As the daemon's bound.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// Above the daemon's bound, so that its reason is what is shown.
const MAX_REQUEST_BYTES: usize = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    #[tokio::test]
    async fn where_no_daemon_is_it_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let global = Global {
            socket: Some(dir.path().join("admin.sock")),
            ..Global::default()
        };
        let text = connect(&global).await.unwrap_err().to_string();
        assert!(
            text.contains("no daemon runs") && text.contains("--socket"),
            "{text}"
        );
        drop(std::os::unix::net::UnixListener::bind(dir.path().join("admin.sock")).unwrap());
        let text = connect(&global).await.unwrap_err().to_string();
        assert!(text.contains("has ended"), "{text}");
    }

    #[tokio::test]
    async fn a_daemon_that_is_just_starting_can_be_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let patience = Duration::from_secs(30);
        let (opened, listener) = tokio::join!(open(&path, patience), async {
            // Polled second: by now nobody was found.
            tokio::net::UnixListener::bind(&path).unwrap()
        });
        opened.unwrap();
        drop(listener);
        let none = open(&path, Duration::from_millis(1)).await.unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn what_is_typed_wins_over_the_environment() {
        let both = |name: &str| match name {
            "EMCCD_SOCKET" => Some("/variable.sock".into()),
            "EMCCD_CONFIG" => Some("/variable.toml".into()),
            _ => None,
        };
        let only_config = |name: &str| both(name).filter(|_| name == "EMCCD_CONFIG");
        let typed = |socket: Option<&str>, config: Option<&str>| Global {
            socket: socket.map(PathBuf::from),
            config: config.map(PathBuf::from),
            ..Global::default()
        };
        let path = PathBuf::from;
        let found = typed(None, Some("/typed.toml")).with_environment(both);
        assert_eq!(
            (found.socket, found.config),
            (None, Some(path("/typed.toml")))
        );
        let found = typed(Some("/typed.sock"), None).with_environment(both);
        assert_eq!(found.socket, Some(path("/typed.sock")));
        let found = typed(None, None).with_environment(both);
        assert_eq!(socket_path(&found).unwrap(), path("/variable.sock"));
        assert_eq!(found.config, Some(path("/variable.toml")));
        let found = typed(None, None).with_environment(only_config);
        assert_eq!(
            (found.socket, found.config),
            (None, Some(path("/variable.toml")))
        );
        let empty = typed(None, None).with_environment(|_| Some(OsString::new()));
        assert_eq!((empty.socket, empty.config), (None, None));
    }

    #[test]
    fn a_socket_that_is_named_wins() {
        let global = Global {
            socket: Some("/x".into()),
            config: Some("/nowhere".into()),
            ..Global::default()
        };
        assert_eq!(socket_path(&global).unwrap(), PathBuf::from("/x"));
        let global = Global {
            socket: None,
            ..global
        };
        let text = socket_path(&global).unwrap_err().to_string();
        assert!(
            text.contains("cannot read the configuration /nowhere"),
            "{text}"
        );
        assert_eq!(
            socket_path(&Global::default()).unwrap(),
            PathBuf::from("/run/emccd/admin.sock")
        );
    }
}
