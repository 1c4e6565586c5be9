//! People who log in and out on phones of other clusters, people whom nobody knows, and a program that asks over one
//! connection, all without a pause: what fails is told, and how much is done per second.

use std::{
    io,
    ops::{Add, Sub},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use emccd::{
    domain::{
        ids::{ClusterId, Ref},
        version::Version,
    },
    lab::{Cluster, Lab, dataset::User, phone::Phone},
    trust::make::{self, CertRequest, KeyKind},
    wire::{metadata, pb, pb::federation_service_client::FederationServiceClient},
};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::{net::TcpStream, task::JoinSet};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status,
    transport::{Endpoint, Uri},
};

use crate::support::{self, days_from_now, tls};

/// Who asks for what nobody has does not take the cores from those who log in.
const PACE: Duration = Duration::from_millis(40);

/// The workers, and what they have done.
pub(super) struct Load {
    stop: CancellationToken,
    workers: JoinSet<()>,
    tally: Arc<Tally>,
}

#[derive(Default)]
struct Tally {
    logins: AtomicU64,
    logouts: AtomicU64,
    unknown: AtomicU64,
    calls: AtomicU64,
    failures: Mutex<Vec<String>>,
}

/// How much was done, up to a moment or between two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) logins: u64,
    pub(super) logouts: u64,
    /// Logins of people whom nobody knows: to say so, every cluster has to have been asked.
    pub(super) unknown: u64,
    /// Calls of a program that shows a certificate of one cluster to another.
    pub(super) calls: u64,
}

impl Done {
    /// What phones and programs asked and were answered.
    pub(super) const fn all(self) -> u64 {
        self.logins + self.logouts + self.unknown + self.calls
    }
}

impl Sub for Done {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            logins: self.logins - before.logins,
            logouts: self.logouts - before.logouts,
            unknown: self.unknown - before.unknown,
            calls: self.calls - before.calls,
        }
    }
}

impl Add for Done {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            logins: self.logins + other.logins,
            logouts: self.logouts + other.logouts,
            unknown: self.unknown + other.unknown,
            calls: self.calls + other.calls,
        }
    }
}

impl Tally {
    fn one(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn fail(&self, what: String) {
        self.failures.lock().unwrap().push(what);
    }
}

impl Load {
    /// Four people of each cluster, two on phones of each of its neighbours, at both of their nodes where there are two;
    /// one whom nobody knows at each node; and a program of the first cluster that asks a node of the second one.
    pub(super) async fn begin(lab: &Lab) -> Self {
        let mut load = Self {
            stop: CancellationToken::new(),
            workers: JoinSet::new(),
            tally: Arc::default(),
        };
        let clusters = lab.clusters.len();
        for (number, home) in lab.clusters.iter().enumerate() {
            for step in 1..clusters.min(3) {
                let visiting = &lab.clusters[(number + step) % clusters];
                for turn in 0..2 {
                    // The neighbour before gives phones 0 and 1, the one before that 2 and 3.
                    let place = (step - 1) * 2 + turn;
                    load.person(home, visiting, place, turn);
                }
            }
            for node in 0..home.members.len() {
                load.unknown(home, 6 + node, node);
            }
        }
        load.program(&lab.clusters[0], &lab.clusters[1]).await;
        load
    }

    fn person(&mut self, home: &Cluster, visiting: &Cluster, place: usize, node: usize) {
        let person = Person {
            phone: phone(visiting, node),
            device: visiting.data.phone(place).unwrap().name.clone(),
            user: home.data.user(place).unwrap().clone(),
        };
        let (tally, stop) = (Arc::clone(&self.tally), self.stop.clone());
        self.workers.spawn(async move {
            while !stop.is_cancelled() {
                person.in_and_out(&tally).await;
            }
        });
    }

    fn unknown(&mut self, visiting: &Cluster, place: usize, node: usize) {
        let phone = phone(visiting, node);
        let device = visiting.data.phone(place).unwrap().name.clone();
        let (tally, stop) = (Arc::clone(&self.tally), self.stop.clone());
        self.workers.spawn(async move {
            while !stop.is_cancelled() {
                let began = Instant::now();
                let shown = phone
                    .login_at_once(&device, None, "nobody.anywhere", "48031")
                    .await;
                match shown {
                    Ok(shown) if shown.em_code == Some(23) => Tally::one(&tally.unknown),
                    Ok(shown) => tally.fail(format!(
                        "an unknown user on {device}: {} after {:?}",
                        shown.text,
                        began.elapsed()
                    )),
                    Err(error) => tally.fail(format!("an unknown user on {device}: {error:?}")),
                }
                tokio::time::sleep(PACE).await;
            }
        });
    }

    /// It shows a certificate that the operator of `them` has pinned for `me` beside those of its nodes.
    async fn program(&mut self, me: &Cluster, them: &Cluster) {
        let asked = CertRequest::new(
            "a program",
            vec!["localhost".to_owned()],
            KeyKind::P256,
            days_from_now(0),
            30,
        );
        let made = make::self_signed(&asked).unwrap();
        support::pin(them, me, &made).await;
        let config = tls::believing_anyone(tls::identity_made(&made));
        let connector = TlsConnector::from(Arc::new(config));
        let address = them.member().unwrap().addresses.federation.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let (connector, address) = (connector.clone(), address.clone());
            async move {
                let tcp = TcpStream::connect(address).await?;
                let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
                Ok::<_, io::Error>(TokioIo::new(connector.connect(name, tcp).await?))
            }
        });
        let endpoint =
            Endpoint::from_static("http://peer").origin(Uri::from_static("https://peer"));
        let mut client =
            FederationServiceClient::new(endpoint.connect_with_connector_lazy(connector));
        let (tally, stop) = (Arc::clone(&self.tally), self.stop.clone());
        let (me, them, name) = (
            me.id.clone(),
            them.id.clone(),
            them.data.user(0).unwrap().user_id.clone(),
        );
        self.workers.spawn(async move {
            while !stop.is_cancelled() {
                let mut answer = client.find_user(question(&me, &name)).await;
                if answer.as_ref().is_err_and(was_never_sent) {
                    answer = client.find_user(question(&me, &name)).await;
                }
                match answer {
                    Ok(_) => Tally::one(&tally.calls),
                    Err(status) => tally.fail(format!("{me} asks {them}: {status:?}")),
                }
                tokio::time::sleep(PACE).await;
            }
        });
    }

    /// What has been done up to now.
    pub(super) fn done(&self) -> Done {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Done {
            logins: read(&self.tally.logins),
            logouts: read(&self.tally.logouts),
            unknown: read(&self.tally.unknown),
            calls: read(&self.tally.calls),
        }
    }

    /// How many requests per second are answered while `what` goes on, and what came of it.
    pub(super) async fn rate_during<T>(&self, what: impl Future<Output = T>) -> (Rate, T) {
        let (before, began) = (self.done(), Instant::now());
        let outcome = what.await;
        let rate = Rate {
            done: self.done() - before,
            took: began.elapsed(),
        };
        (rate, outcome)
    }

    /// What failed up to now.
    pub(super) fn failures(&self) -> Vec<String> {
        self.tally.failures.lock().unwrap().clone()
    }

    /// What was done. Whatever failed fails the test.
    pub(super) async fn end(self) -> Done {
        self.stop.cancel();
        let done = self.done();
        let failures = Arc::clone(&self.tally);
        self.workers.join_all().await;
        let failures = failures.failures.lock().unwrap();
        assert!(
            failures.is_empty(),
            "{} of {} failed: {:#?}",
            failures.len(),
            done.all(),
            failures.iter().take(20).collect::<Vec<_>>()
        );
        done
    }
}

/// So much in such a time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    pub(super) done: Done,
    pub(super) took: Duration,
}

impl Rate {
    /// Logins and logouts per second: what is not paced.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub(super) fn per_second(&self) -> f64 {
        (self.done.logins + self.done.logouts) as f64 / self.took.as_secs_f64()
    }
}

impl Add for Rate {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            done: self.done + other.done,
            took: self.took + other.took,
        }
    }
}

struct Person {
    phone: Phone,
    device: String,
    user: User,
}

impl Person {
    async fn in_and_out(&self, tally: &Tally) {
        let Self {
            phone,
            device,
            user,
        } = self;
        let began = Instant::now();
        let fail = |what: &str, said: &str| {
            tally.fail(format!(
                "{what} of {} on {device} after {:?}: {said}",
                user.user_id,
                began.elapsed()
            ));
        };
        let shown = phone
            .login_at_once(device, None, &user.user_id, &user.pin)
            .await;
        match shown {
            Ok(shown) if shown.em_code.is_none() => Tally::one(&tally.logins),
            Ok(shown) => fail("login", &shown.text),
            Err(error) => fail("login", &format!("{error:?}")),
        }
        match phone.logout(device).await {
            Ok(shown) if shown.em_code.is_none() => Tally::one(&tally.logouts),
            Ok(shown) => fail("logout", &shown.text),
            Err(error) => fail("logout", &format!("{error:?}")),
        }
    }
}

fn phone(cluster: &Cluster, node: usize) -> Phone {
    let node = node % cluster.members.len();
    cluster.members[node].phone().unwrap()
}

/// Whether a call was still with this program when its connection was asked to end. gRPC has clients send it again by
/// themselves; this library leaves it to its users.
fn was_never_sent(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            // It came after the last call that the closing connection looks at (RFC 9113, section 6.8).
            return error.is_go_away()
                && error.is_remote()
                && error.reason() == Some(h2::Reason::NO_ERROR);
        }
        if let Some(error) = error.downcast_ref::<hyper::Error>()
            && error.is_canceled()
        {
            return true;
        }
        cause = error.source();
    }
    false
}

fn question(me: &ClusterId, name: &str) -> Request<pb::FindUserRequest> {
    let mut request = Request::new(pb::FindUserRequest {
        login_type: pb::LoginType::Uid.into(),
        name: name.to_owned(),
    });
    metadata::write(
        request.metadata_mut(),
        me,
        Version::V1_1,
        Ref::from_bits(rand::random()),
    );
    request.set_timeout(Duration::from_secs(20));
    request
}
