//! A TCP relay between two clusters that can be cut and healed: new connections are refused or swallowed, living ones
//! are reset or stand still, and each way can be cut by itself.
//!
//! Of the two ends, *near* is who dialled the relay, and *far* is whom the relay dialled.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
};

use crate::{tasks::Tasks, watch};

/// What the relay does with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Hands them on.
    Open,
    /// Closes every connection, and every new one at once.
    Refuse,
    /// Takes bytes and connections and hands nothing on: a network that lost its way.
    Swallow,
}

/// What becomes of bytes that go one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// They are handed on.
    Open,
    /// They are kept back, and handed on when the way is open again: what TCP makes of a short interruption.
    Held,
    /// They never arrive. A connection that lost some, its end among them, is reset when the way is open again: what
    /// comes of a long interruption, or of a firewall that has forgotten the connection.
    Lost,
}

/// What a relay does at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    refuses: bool,
    to_far: Flow,
    to_near: Flow,
    /// How often the living connections were killed.
    kills: u64,
}

/// One of the two ways of a connection.
#[derive(Clone, Copy)]
enum Way {
    ToFar,
    ToNear,
}

impl State {
    const fn flow(&self, way: Way) -> Flow {
        match way {
            Way::ToFar => self.to_far,
            Way::ToNear => self.to_near,
        }
    }
}

/// A relay to one address. It ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where to connect.
    pub address: SocketAddr,
    state: watch::Sender<State>,
    tasks: Tasks,
}

impl Proxy {
    /// Opens a relay to `target` on a free loopback port.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(target: String) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (state, watched) = watch::channel(State {
            refuses: false,
            to_far: Flow::Open,
            to_near: Flow::Open,
            kills: 0,
        });
        let tasks = Tasks::default();
        let inner = tasks.clone();
        tasks.spawn("proxy", async move {
            accept(listener, target, watched, inner).await;
        });
        Ok(Self {
            address,
            state,
            tasks,
        })
    }

    /// Changes what it does, also with living connections.
    pub fn set(&self, mode: Mode) {
        let flow = match mode {
            Mode::Open | Mode::Refuse => Flow::Open,
            Mode::Swallow => Flow::Held,
        };
        self.state.send_modify(|state| {
            state.refuses = mode == Mode::Refuse;
            (state.to_far, state.to_near) = (flow, flow);
        });
    }

    /// Changes what becomes of bytes on their way to the far end, and on their way to the near one.
    pub fn steer(&self, to_far: Flow, to_near: Flow) {
        self.state.send_modify(|state| {
            (state.to_far, state.to_near) = (to_far, to_near);
        });
    }

    /// Resets the living connections. New ones are taken as before.
    pub fn kill(&self) {
        self.state
            .send_modify(|state| state.kills = state.kills.wrapping_add(1));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

async fn accept(
    listener: TcpListener,
    target: String,
    state: watch::Receiver<State>,
    tasks: Tasks,
) {
    loop {
        let accepted = tokio::select! {
            () = tasks.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else { continue };
        if state.borrow().refuses {
            continue;
        }
        let (target, state, token) = (target.clone(), state.clone(), tasks.token());
        tasks.spawn("proxied connection", async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = connect(stream, &target, state) => {}
            }
        });
    }
}

/// Dials the far end, unless the connection is ended before, and hands bytes on.
async fn connect(near: TcpStream, target: &str, state: watch::Receiver<State>) {
    let mut asked = state.clone();
    let kills = state.borrow().kills;
    let ended = async {
        let mut state = state.clone();
        let is_over = |state: &State| state.refuses || state.kills != kills;
        // Who sets it is gone: so is the relay.
        let _gone = state.wait_for(is_over).await;
    };
    let dialled = async {
        // That somebody wants a connection goes the same way as what they say in it.
        asked.wait_for(|s| s.to_far == Flow::Open).await.ok()?;
        let dial = TcpStream::connect(target);
        let dialled = tokio::time::timeout(Duration::from_secs(5), dial).await;
        dialled.ok()?.ok()
    };
    tokio::pin!(ended);
    let far = tokio::select! {
        () = &mut ended => return reset(&near),
        far = dialled => far,
    };
    let (mut near, Some(mut far)) = (near, far) else {
        return;
    };
    let is_reset = {
        let ((near_in, near_out), (far_in, far_out)) = (near.split(), far.split());
        tokio::select! {
            () = ended => true,
            has_lost = copy(near_in, far_out, state.clone(), Way::ToFar) => has_lost,
            has_lost = copy(far_in, near_out, state.clone(), Way::ToNear) => has_lost,
        }
    };
    if is_reset {
        reset(&near);
        reset(&far);
    }
}

/// Has the end of the connection told by a reset, as a network tells it that has forgotten about it.
fn reset(stream: &TcpStream) {
    // Where the system refuses, it ends in the usual way.
    let _unusual = stream.set_zero_linger();
}

/// Hands bytes on until the connection ends; whether it ends because some were lost.
async fn copy(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut state: watch::Receiver<State>,
    way: Way,
) -> bool {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        // The end of a connection goes the same way as what was said in it.
        let count = from.read(&mut buffer).await.unwrap_or(0);
        let flow = match state.wait_for(|s| s.flow(way) != Flow::Held).await {
            Ok(state) => state.flow(way),
            Err(_) => return false,
        };
        if flow == Flow::Lost {
            let _found = state.wait_for(|s| s.flow(way) != Flow::Lost).await;
            return true;
        }
        match buffer.get(..count) {
            Some([]) | None => return false,
            Some(bytes) => {
                if to.write_all(bytes).await.is_err() {
                    return false;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A relay before a listener, and both ends of one connection through it.
    async fn through() -> (Proxy, TcpListener, TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap().to_string();
        let proxy = Proxy::start(target).await.unwrap();
        let mut near = TcpStream::connect(proxy.address).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        // The relay knows by now that it has been accepted.
        near.write_all(b"first").await.unwrap();
        hears(&mut far, b"first").await;
        (proxy, listener, near, far)
    }

    async fn hears(stream: &mut TcpStream, what: &[u8]) {
        let mut heard = vec![0; what.len()];
        let read = stream.read_exact(&mut heard);
        tokio::time::timeout(Duration::from_secs(10), read)
            .await
            .expect("it arrives")
            .unwrap();
        assert_eq!(heard, what);
    }

    /// It has heard nothing for a while, not even that the connection is over.
    async fn hears_nothing(stream: &mut TcpStream) {
        let mut heard = [0; 16];
        let read = stream.read(&mut heard);
        let heard = tokio::time::timeout(Duration::from_millis(80), read).await;
        assert!(heard.is_err(), "{heard:?}");
    }

    async fn is_reset(stream: &mut TcpStream) {
        let mut heard = Vec::new();
        let read = stream.read_to_end(&mut heard);
        let ended = tokio::time::timeout(Duration::from_secs(10), read).await;
        let error = ended.expect("it ends").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn one_way_is_held_while_the_other_one_is_open_and_nothing_is_lost() {
        let (proxy, _listener, mut near, mut far) = through().await;
        proxy.steer(Flow::Open, Flow::Held);
        near.write_all(b"ask").await.unwrap();
        hears(&mut far, b"ask").await;
        far.write_all(b"answer").await.unwrap();
        hears_nothing(&mut near).await;
        proxy.steer(Flow::Open, Flow::Open);
        hears(&mut near, b"answer").await;
    }

    #[tokio::test]
    async fn what_is_lost_never_arrives_and_the_connection_is_reset_when_the_way_is_found_again() {
        let (proxy, _listener, mut near, mut far) = through().await;
        proxy.steer(Flow::Lost, Flow::Open);
        near.write_all(b"ask").await.unwrap();
        hears_nothing(&mut far).await;
        far.write_all(b"told").await.unwrap();
        hears(&mut near, b"told").await;
        proxy.steer(Flow::Open, Flow::Open);
        is_reset(&mut far).await;
        is_reset(&mut near).await;
    }

    #[tokio::test]
    async fn a_connection_that_had_nothing_to_lose_lives_on() {
        let (proxy, _listener, mut near, mut far) = through().await;
        proxy.steer(Flow::Lost, Flow::Lost);
        proxy.steer(Flow::Open, Flow::Open);
        near.write_all(b"ask").await.unwrap();
        hears(&mut far, b"ask").await;
    }

    #[tokio::test]
    async fn the_end_of_a_connection_is_held_like_what_was_said_in_it() {
        let (proxy, _listener, near, mut far) = through().await;
        proxy.set(Mode::Swallow);
        drop(near);
        hears_nothing(&mut far).await;
        proxy.set(Mode::Open);
        let mut heard = Vec::new();
        let read = far.read_to_end(&mut heard);
        let ended = tokio::time::timeout(Duration::from_secs(10), read).await;
        assert_eq!(ended.expect("it ends").unwrap(), 0);
    }

    #[tokio::test]
    async fn living_connections_are_killed_and_new_ones_are_taken() {
        let (proxy, listener, mut near, mut far) = through().await;
        proxy.kill();
        is_reset(&mut near).await;
        is_reset(&mut far).await;
        let mut near = TcpStream::connect(proxy.address).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        near.write_all(b"again").await.unwrap();
        hears(&mut far, b"again").await;
    }

    #[tokio::test]
    async fn who_may_not_be_heard_is_not_dialled_for() {
        let (proxy, listener, _near, _far) = through().await;
        proxy.steer(Flow::Held, Flow::Open);
        let mut near = TcpStream::connect(proxy.address).await.unwrap();
        near.write_all(b"hello").await.unwrap();
        let accepted = tokio::time::timeout(Duration::from_millis(80), listener.accept()).await;
        assert!(accepted.is_err(), "{accepted:?}");
        proxy.steer(Flow::Open, Flow::Open);
        let (mut far, _) = listener.accept().await.unwrap();
        hears(&mut far, b"hello").await;
    }
}
