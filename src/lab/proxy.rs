//! A TCP relay between two clusters that can be cut and healed: new connections are refused or swallowed,
//! living ones are reset or stand still.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
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

/// A relay to one address. It ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where to connect.
    pub address: SocketAddr,
    mode: watch::Sender<Mode>,
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
        let (mode, watched) = watch::channel(Mode::Open);
        let tasks = Tasks::default();
        let inner = tasks.clone();
        tasks.spawn("proxy", async move {
            accept(listener, target, watched, inner).await;
        });
        Ok(Self {
            address,
            mode,
            tasks,
        })
    }

    /// Changes what it does, also with living connections.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

async fn accept(listener: TcpListener, target: String, mode: watch::Receiver<Mode>, tasks: Tasks) {
    loop {
        let accepted = tokio::select! {
            () = tasks.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else { continue };
        if *mode.borrow() == Mode::Refuse {
            continue;
        }
        let (target, mode, token) = (target.clone(), mode.clone(), tasks.token());
        tasks.spawn("proxied connection", async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = relay(stream, &target, mode) => {}
            }
        });
    }
}

async fn relay(near: TcpStream, target: &str, mut mode: watch::Receiver<Mode>) {
    if mode.wait_for(|m| *m != Mode::Swallow).await.is_err() {
        return;
    }
    let dial = tokio::time::timeout(Duration::from_secs(5), TcpStream::connect(target));
    let Ok(Ok(far)) = dial.await else { return };
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let closed = {
        let mut mode = mode.clone();
        async move { mode.wait_for(|m| *m == Mode::Refuse).await.map(drop) }
    };
    tokio::select! {
        () = copy(near_in, far_out, mode.clone()) => {}
        () = copy(far_in, near_out, mode) => {}
        _ = closed => {}
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut mode: watch::Receiver<Mode>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        // What came while the way was lost stays lost until it is found again, as with TCP.
        if mode.wait_for(|m| *m != Mode::Swallow).await.is_err() {
            return;
        }
        let Some(bytes) = buffer.get(..count) else {
            return;
        };
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}
