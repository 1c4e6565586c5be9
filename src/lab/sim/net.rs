//! The network of a simulated federation: pipes in memory between hosts, on which every write takes its time, and
//! which can be cut, one way or both, held up, refused and killed.
//!
//! A pipe stands for a connection after its TLS handshake: each side is handed the certificates that the other really
//! shows, and judges them itself.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt, io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use rustls_pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    time::{Instant, Sleep, sleep, sleep_until},
};

use crate::chance::Chance;

/// Certificates as shown, the leaf first.
pub(crate) type Chain = Vec<CertificateDer<'static>>;

/// What becomes of what is sent on a way that is cut.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Cut {
    /// It arrives once the way is mended.
    Held,
    /// It is gone, and with it the connection, though neither side is told.
    Dropped,
}

/// The network. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Net(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Told whenever a way opens or closes.
    changed: Notify,
}

struct State {
    chance: Chance,
    began: Instant,
    latency: (u64, u64),
    doors: BTreeMap<SocketAddr, Opened>,
    gates: BTreeMap<(IpAddr, IpAddr), Arc<Gate>>,
    cuts: BTreeMap<u64, (IpAddr, IpAddr, Cut)>,
    next: u64,
    held: Vec<IpAddr>,
    refusing: Vec<IpAddr>,
    wires: Vec<Weak<Wire>>,
    ports: u16,
    /// Of everything that has arrived: what, where, when.
    trace: u64,
}

type Door = Arc<dyn Fn(Arrived) + Send + Sync>;

struct Opened {
    chain: Chain,
    door: Door,
}

/// A connection that a host accepts.
pub(crate) struct Arrived {
    /// Our end of it.
    pub(crate) pipe: Pipe,
    /// Whose other end it is.
    pub(crate) remote: SocketAddr,
    /// What the caller shows.
    pub(crate) chain: Chain,
}

impl fmt::Debug for Arrived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Arrived({})", self.remote)
    }
}

/// What stands at one way between two hosts.
#[derive(Default)]
struct Gate(AtomicU8);

const OPEN: u8 = 0;
const HELD: u8 = 1;
const DROPPED: u8 = 2;

impl Gate {
    fn state(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Both ways of one connection.
struct Wire {
    ends: [IpAddr; 2],
    /// From the first end to the second, and back.
    lanes: [Arc<Lane>; 2],
}

/// One way of one connection.
struct Lane {
    net: Arc<Shared>,
    from: IpAddr,
    to: IpAddr,
    gate: Arc<Gate>,
    state: Mutex<Traffic>,
}

#[derive(Default)]
struct Traffic {
    items: VecDeque<(Instant, Item)>,
    /// When the newest item arrives: none overtakes another.
    last: Option<Instant>,
    bytes: usize,
    /// Something was lost: nothing arrives any more.
    is_hole: bool,
    has_reader: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

enum Item {
    Bytes(Bytes),
    End,
    Reset,
}

impl Net {
    /// An empty one, inside a runtime. Each write takes up to 20 ms.
    pub(crate) fn new(chance: Chance) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::new(State {
                chance,
                began: Instant::now(),
                latency: (1, 20),
                doors: BTreeMap::new(),
                gates: BTreeMap::new(),
                cuts: BTreeMap::new(),
                next: 0,
                held: Vec::new(),
                refusing: Vec::new(),
                wires: Vec::new(),
                ports: 20_000,
                trace: 0,
            }),
            changed: Notify::new(),
        }))
    }

    /// Tells, later, whether anybody still holds it.
    pub(crate) fn remains(&self) -> impl Fn() -> bool + use<> {
        let held = Arc::downgrade(&self.0);
        move || held.strong_count() > 0
    }

    /// From here on a write takes from `least` to `most` milliseconds.
    pub(crate) fn set_latency(&self, least: u64, most: u64) {
        self.0.state().latency = (least, most.max(least));
    }

    /// Accepts connections at `at`; whoever comes is shown `chain`.
    pub(crate) fn open(
        &self,
        at: SocketAddr,
        chain: Chain,
        door: impl Fn(Arrived) + Send + Sync + 'static,
    ) {
        let door: Door = Arc::new(door);
        self.0.state().doors.insert(at, Opened { chain, door });
    }

    /// The host is gone: nobody accepts there, and its connections end, for the others as soon as they hear of it.
    pub(crate) fn crash(&self, host: IpAddr) {
        self.0.state().doors.retain(|at, _| at.ip() != host);
        for wire in self.wires(|wire| wire.ends.contains(&host)) {
            for lane in &wire.lanes {
                if lane.to == host {
                    lane.reset();
                } else {
                    lane.push(Item::Reset);
                }
            }
        }
    }

    /// Cuts the way from one host to another until [`mend`](Self::mend) is called with the result. The way back stays
    /// as it is.
    pub(crate) fn cut(&self, from: IpAddr, to: IpAddr, how: Cut) -> u64 {
        let id = {
            let mut state = self.0.state();
            state.next += 1;
            let id = state.next;
            state.cuts.insert(id, (from, to, how));
            id
        };
        self.settle();
        id
    }

    /// Mends what was cut.
    pub(crate) fn mend(&self, cut: u64) {
        self.0.state().cuts.remove(&cut);
        self.settle();
    }

    /// Holds up all that a host sends and gets, as when its processes are stopped; or lets go of it.
    pub(crate) fn hold(&self, host: IpAddr, is_held: bool) {
        toggle(&mut self.0.state().held, host, is_held);
        self.settle();
    }

    /// New connections to a host are refused; or no longer.
    pub(crate) fn refuse(&self, host: IpAddr, refuses: bool) {
        toggle(&mut self.0.state().refusing, host, refuses);
    }

    /// Ends every connection between two hosts at once; both hear of it.
    pub(crate) fn kill(&self, a: IpAddr, b: IpAddr) {
        for wire in self.wires(|wire| wire.ends == [a, b] || wire.ends == [b, a]) {
            for lane in &wire.lanes {
                lane.reset();
            }
        }
    }

    /// Mends every cut, and lets go of every host.
    pub(crate) fn heal(&self) {
        {
            let mut state = self.0.state();
            state.cuts.clear();
            state.held.clear();
            state.refusing.clear();
        }
        self.settle();
    }

    /// Connects from a host to a door. Like a real one it waits for as long as the way is cut: who calls has a limit.
    ///
    /// # Errors
    /// When nobody accepts there.
    pub(crate) async fn dial(
        &self,
        from: IpAddr,
        shown: Chain,
        to: SocketAddr,
    ) -> io::Result<(Pipe, Chain)> {
        // Once for TCP and once for TLS.
        for _ in 0..2 {
            self.pass(from, to.ip()).await;
            self.is_accepted(to)?;
            self.pass(to.ip(), from).await;
        }
        let (ours, arrived, door, chain) = {
            let mut state = self.0.state();
            let opened = state
                .doors
                .get(&to)
                .ok_or(io::ErrorKind::ConnectionRefused)?;
            let (door, chain) = (Arc::clone(&opened.door), opened.chain.clone());
            state.ports = state.ports.wrapping_add(1).max(20_000);
            let remote = SocketAddr::new(from, state.ports);
            let lanes = [
                state.lane(&self.0, from, to.ip()),
                state.lane(&self.0, to.ip(), from),
            ];
            let wire = Arc::new(Wire {
                ends: [from, to.ip()],
                lanes: lanes.clone(),
            });
            state.wires.retain(|wire| wire.strong_count() > 0);
            state.wires.push(Arc::downgrade(&wire));
            let [out, back] = lanes;
            let ours = Pipe::new(&wire, &out, &back);
            let pipe = Pipe::new(&wire, &back, &out);
            let arrived = Arrived {
                pipe,
                remote,
                chain: shown,
            };
            (ours, arrived, door, chain)
        };
        door(arrived);
        Ok((ours, chain))
    }

    /// What tells one course of events from another: it is the same where the same arrived at the same moments.
    pub(crate) fn trace(&self) -> u64 {
        self.0.state().trace
    }

    fn is_accepted(&self, to: SocketAddr) -> io::Result<()> {
        let state = self.0.state();
        if state.refusing.contains(&to.ip()) || !state.doors.contains_key(&to) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok(())
    }

    /// One packet's way.
    async fn pass(&self, from: IpAddr, to: IpAddr) {
        let length = self.0.state().draw_latency();
        sleep(length).await;
        loop {
            let changed = self.0.changed.notified();
            if self.0.state().gate(from, to).state() == OPEN {
                return;
            }
            changed.await;
        }
    }

    fn wires(&self, is_meant: impl Fn(&Wire) -> bool) -> Vec<Arc<Wire>> {
        let all: Vec<_> = self
            .0
            .state()
            .wires
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        all.into_iter().filter(|wire| is_meant(wire)).collect()
    }

    /// Sets each gate by what is cut and held now, and lets those go on who waited for that.
    fn settle(&self) {
        {
            let state = self.0.state();
            for ((from, to), gate) in &state.gates {
                let is_held = state.held.contains(from) || state.held.contains(to);
                let cut = state
                    .cuts
                    .values()
                    .filter(|(a, b, _)| (a, b) == (from, to))
                    .map(|(_, _, how)| match how {
                        Cut::Held => HELD,
                        Cut::Dropped => DROPPED,
                    })
                    .max();
                let now = cut.unwrap_or(OPEN).max(if is_held { HELD } else { OPEN });
                gate.0.store(now, Ordering::Relaxed);
            }
        }
        for wire in self.wires(|_| true) {
            for lane in &wire.lanes {
                lane.wake();
            }
        }
        self.0.changed.notify_waiters();
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Net")
    }
}

/// What tells the hosts of a run apart.
fn last_of(host: IpAddr) -> u64 {
    match host {
        IpAddr::V4(host) => {
            let [_, _, cluster, node] = host.octets();
            u64::from(cluster << 4 ^ node)
        }
        IpAddr::V6(_) => 0,
    }
}

fn toggle(list: &mut Vec<IpAddr>, host: IpAddr, is_in: bool) {
    list.retain(|one| *one != host);
    if is_in {
        list.push(host);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn draw_latency(&self) -> Duration {
        let (least, most) = self.latency;
        Duration::from_millis(self.chance.range(least..most + 1))
    }

    fn gate(&mut self, from: IpAddr, to: IpAddr) -> Arc<Gate> {
        if !self.gates.contains_key(&(from, to)) {
            let gate = Gate::default();
            let is_held = self.held.contains(&from) || self.held.contains(&to);
            let cuts = self
                .cuts
                .values()
                .filter(|(a, b, _)| (*a, *b) == (from, to));
            let state = cuts.fold(if is_held { HELD } else { OPEN }, |state, (_, _, how)| {
                state.max(match how {
                    Cut::Held => HELD,
                    Cut::Dropped => DROPPED,
                })
            });
            gate.0.store(state, Ordering::Relaxed);
            self.gates.insert((from, to), Arc::new(gate));
        }
        Arc::clone(&self.gates[&(from, to)])
    }

    fn lane(&mut self, net: &Arc<Shared>, from: IpAddr, to: IpAddr) -> Arc<Lane> {
        Arc::new(Lane {
            net: Arc::clone(net),
            from,
            to,
            gate: self.gate(from, to),
            state: Mutex::new(Traffic {
                has_reader: true,
                ..Traffic::default()
            }),
        })
    }
}

impl Lane {
    fn state(&self) -> MutexGuard<'_, Traffic> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends something behind all that was sent before.
    fn push(&self, item: Item) {
        let length = self.net.state().draw_latency();
        let mut state = self.state();
        if self.gate.state() == DROPPED {
            state.is_hole = true;
        }
        if state.is_hole || !state.has_reader {
            return;
        }
        let at = Instant::now() + length;
        let at = state.last.map_or(at, |last| last.max(at));
        state.last = Some(at);
        if let Item::Bytes(bytes) = &item {
            state.bytes += bytes.len();
        }
        state.items.push_back((at, item));
        wake(state.reader.take());
    }

    /// Ends it for its reader, at once.
    fn reset(&self) {
        let mut state = self.state();
        state.items.clear();
        state.items.push_back((Instant::now(), Item::Reset));
        state.is_hole = false;
        state.last = Some(Instant::now() + Duration::from_secs(1_000_000));
        state.has_reader = false;
        wake(state.reader.take());
        wake(state.writer.take());
    }

    fn wake(&self) {
        let mut state = self.state();
        wake(state.reader.take());
        wake(state.writer.take());
    }

    /// Not how long it was: maps in messages have no order, and lengths of what is compressed depend on it.
    fn note(&self) {
        let mut state = self.net.state();
        let millis = u64::try_from(state.began.elapsed().as_millis()).unwrap_or_default();
        let what = (millis << 16) ^ (last_of(self.from) << 8) ^ last_of(self.to);
        state.trace = Chance::seeded(state.trace ^ what).u64();
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// One end of a connection.
pub(crate) struct Pipe {
    _wire: Arc<Wire>,
    out: Arc<Lane>,
    back: Arc<Lane>,
    /// When what is on its way arrives.
    arrival: Option<Pin<Box<Sleep>>>,
    has_ended: bool,
}

impl Pipe {
    fn new(wire: &Arc<Wire>, out: &Arc<Lane>, back: &Arc<Lane>) -> Self {
        Self {
            _wire: Arc::clone(wire),
            out: Arc::clone(out),
            back: Arc::clone(back),
            arrival: None,
            has_ended: false,
        }
    }

    /// Waits until `at`.
    fn poll_arrival(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let arrival = self
            .arrival
            .get_or_insert_with(|| Box::pin(sleep_until(at)));
        if arrival.deadline() != at {
            arrival.as_mut().reset(at);
        }
        arrival.as_mut().poll(cx)
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let lane = Arc::clone(&self.back);
        loop {
            let mut state = lane.state();
            let traffic = &mut *state;
            traffic.reader = Some(cx.waker().clone());
            let gate = lane.gate.state();
            let Some((at, item)) = traffic.items.front_mut() else {
                return Poll::Pending;
            };
            // One that did not come over the way.
            let is_cut_off = matches!(item, Item::Reset) && !traffic.has_reader;
            if gate == HELD && !is_cut_off {
                return Poll::Pending;
            }
            let at = *at;
            if at > Instant::now() {
                drop(state);
                ready!(self.poll_arrival(at, cx));
                continue;
            }
            if gate == DROPPED && !is_cut_off {
                traffic.is_hole = true;
                traffic.items.clear();
                traffic.bytes = 0;
                return Poll::Pending;
            }
            let length = match item {
                Item::Reset => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                Item::End => return Poll::Ready(Ok(())),
                Item::Bytes(bytes) => {
                    let length = bytes.len().min(buf.remaining());
                    buf.put_slice(&bytes.split_to(length));
                    if bytes.is_empty() {
                        traffic.items.pop_front();
                    }
                    length
                }
            };
            traffic.bytes = traffic.bytes.saturating_sub(length);
            wake(traffic.writer.take());
            drop(state);
            lane.note();
            return Poll::Ready(Ok(()));
        }
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        {
            let mut state = self.out.state();
            if state.bytes >= ROOM {
                state.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
        }
        if self.has_ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.out.push(Item::Bytes(Bytes::copy_from_slice(buf)));
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.has_ended, true) {
            self.out.push(Item::End);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        if !self.has_ended {
            self.out.push(Item::End);
        }
        let mut back = self.back.state();
        back.has_reader = false;
        back.items.clear();
        back.bytes = 0;
        wake(back.writer.take());
    }
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pipe({} to {})", self.out.from, self.out.to)
    }
}

// What may be on its way: a socket's buffers.
const ROOM: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        sync::mpsc,
        time::timeout,
    };

    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn at() -> SocketAddr {
        SocketAddr::new(B, 443)
    }

    fn opened() -> (Net, mpsc::Receiver<Arrived>) {
        let net = Net::new(Chance::seeded(1));
        let (sender, receiver) = mpsc::channel(16);
        let chain = vec![CertificateDer::from(vec![2])];
        net.open(at(), chain, move |arrived| {
            // Of a later one the test may not want to know.
            let _ = sender.try_send(arrived);
        });
        (net, receiver)
    }

    async fn connected() -> (Net, Pipe, Pipe) {
        let (net, mut receiver) = opened();
        let shown = vec![CertificateDer::from(vec![1])];
        let (a, chain) = net.dial(A, shown.clone(), at()).await.unwrap();
        assert_eq!(chain, vec![CertificateDer::from(vec![2])]);
        let arrived = receiver.recv().await.unwrap();
        assert_eq!((arrived.chain, arrived.remote.ip()), (shown, A));
        (net, a, arrived.pipe)
    }

    async fn hears(pipe: &mut Pipe, within_ms: u64) -> Option<Vec<u8>> {
        let mut buf = [0; 64];
        let length = timeout(Duration::from_millis(within_ms), pipe.read(&mut buf)).await;
        Some(buf[..length.ok()?.unwrap()].to_vec())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_written_arrives_in_order_after_a_while() {
        let (_net, mut a, mut b) = connected().await;
        let began = Instant::now();
        for n in 0..50u8 {
            a.write_all(&[n]).await.unwrap();
        }
        let mut all = Vec::new();
        while all.len() < 50 {
            all.extend(hears(&mut b, 1_000).await.unwrap());
        }
        assert_eq!(all, (0..50).collect::<Vec<_>>());
        assert!(began.elapsed() >= Duration::from_millis(1));
        drop(a);
        assert_eq!(hears(&mut b, 1_000).await, Some(Vec::new()), "the end");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_arrives_when_the_way_is_mended_and_the_way_back_is_open_meanwhile() {
        let (net, mut a, mut b) = connected().await;
        let cut = net.cut(A, B, Cut::Held);
        a.write_all(b"x").await.unwrap();
        b.write_all(b"y").await.unwrap();
        assert_eq!(hears(&mut b, 5_000).await, None);
        assert_eq!(hears(&mut a, 100).await, Some(b"y".to_vec()));
        net.mend(cut);
        assert_eq!(hears(&mut b, 100).await, Some(b"x".to_vec()));
    }

    #[tokio::test(start_paused = true)]
    async fn after_what_was_lost_nothing_arrives_on_a_connection_and_a_new_one_works() {
        let (net, mut a, mut b) = connected().await;
        a.write_all(b"under way").await.unwrap();
        let cut = net.cut(A, B, Cut::Dropped);
        assert_eq!(hears(&mut b, 100).await, None);
        net.mend(cut);
        a.write_all(b"x").await.unwrap();
        assert_eq!(hears(&mut b, 60_000).await, None);
        net.dial(A, Vec::new(), at()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_connects_while_either_way_is_cut_and_waits_until_it_is_mended() {
        let (net, _receiver) = opened();
        for (from, to) in [(A, B), (B, A)] {
            let cut = net.cut(from, to, Cut::Dropped);
            let dial = net.dial(A, Vec::new(), at());
            let mut dial = std::pin::pin!(dial);
            let waited = timeout(Duration::from_secs(30), dial.as_mut()).await;
            assert!(waited.is_err());
            net.mend(cut);
            dial.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_refuses_or_is_gone_says_so_and_its_connections_end() {
        let (net, mut a, mut b) = connected().await;
        net.refuse(B, true);
        let refused = net.dial(A, Vec::new(), at()).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        net.refuse(B, false);
        net.dial(A, Vec::new(), at()).await.unwrap();
        net.crash(B);
        for pipe in [&mut a, &mut b] {
            let ended = pipe.read_u8().await.unwrap_err();
            assert_eq!(ended.kind(), io::ErrorKind::ConnectionReset);
        }
        net.dial(A, Vec::new(), at()).await.unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_crash_behind_a_cut_nobody_hears() {
        let (net, mut a, _b) = connected().await;
        net.cut(B, A, Cut::Held);
        net.crash(B);
        assert_eq!(hears(&mut a, 60_000).await, None);
        net.heal();
        a.read_u8().await.unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_can_be_killed_and_a_host_held_up() {
        let (net, mut a, mut b) = connected().await;
        net.hold(B, true);
        a.write_all(b"x").await.unwrap();
        assert_eq!(hears(&mut b, 20_000).await, None);
        net.hold(B, false);
        assert_eq!(hears(&mut b, 100).await, Some(b"x".to_vec()));
        net.kill(B, A);
        a.read_u8().await.unwrap_err();
        b.read_u8().await.unwrap_err();
        net.dial(A, Vec::new(), at()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_waits_where_nobody_reads() {
        let (_net, mut a, mut b) = connected().await;
        let much = vec![7; ROOM];
        a.write_all(&much).await.unwrap();
        let waits = timeout(Duration::from_secs(5), a.write_all(b"x")).await;
        assert!(waits.is_err());
        let mut all = vec![0; ROOM];
        b.read_exact(&mut all).await.unwrap();
        a.write_all(b"x").await.unwrap();
        assert_eq!(hears(&mut b, 1_000).await, Some(b"x".to_vec()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_lots_and_writes_leave_the_same_trace() {
        let course = |seed, text: &'static [u8]| async move {
            let net = Net::new(Chance::seeded(seed));
            let (sender, mut receiver) = mpsc::channel(1);
            net.open(at(), Vec::new(), move |arrived| {
                sender.try_send(arrived).unwrap();
            });
            let (mut a, _) = net.dial(A, Vec::new(), at()).await.unwrap();
            let mut b = receiver.recv().await.unwrap().pipe;
            a.write_all(text).await.unwrap();
            hears(&mut b, 1_000).await.unwrap();
            net.trace()
        };
        assert_eq!(course(1, b"abc").await, course(1, b"abc").await);
        assert_ne!(course(1, b"abc").await, course(2, b"abc").await);
    }
}
