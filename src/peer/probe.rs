//! What is at an address, step by step: the name, the connection, TLS, what is shown there, and what is said of us.
//!
//! The first handshake only takes down what the other side shows, and then fails: nobody is believed by it. Only a
//! server that is trusted is dialled again, as a link would be, to hear what it says of our own certificate.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error as TlsError, SignatureScheme,
    SupportedProtocolVersion,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use tonic::{Request, Status};

use crate::{
    clock::{Clock, Timestamp},
    domain::{address::HostPort, ids::ClusterId, rejection::Rejection},
    peer::{
        Config, Sequences,
        attempt::{new_reference, offset_ms, shown_to},
        connector::{Dialer, TcpTls, alert_rejection},
        error::{bounded, with_sources},
        lookup::Lookups,
        shared::Client,
    },
    trust::{
        Snapshot, TrustStore,
        bundle::Direction,
        certificate::fingerprint_of,
        explain::{Case, Part, Step},
        judge::{Verdict, judge_as},
        mend::{mend, mend_ours},
        tls::{ALPN_H2, is_alert, provider, rejection_of},
    },
    wire::{federation::Hello, metadata, pb, status},
};

/// What a look at an address takes.
#[derive(Clone, Debug)]
pub struct Prober {
    /// How links behave here, and who we are.
    pub config: Config,
    /// What we trust and show.
    pub trust: TrustStore,
    /// This node's clock.
    pub clock: Clock,
}

/// What was found at an address.
#[derive(Clone, Debug)]
pub struct Found {
    /// The explanation.
    pub part: Part,
    /// Where the name leads.
    pub sockets: Vec<SocketAddr>,
}

/// How many of a name's addresses are tried.
const MAX_RESOLVED: usize = 4;
/// All steps at one address together.
const WHOLE: Duration = Duration::from_secs(30);

impl Prober {
    /// Looks at `address`, which is to be `wanted`; at any peer when none is named. Always gives an answer, within
    /// half a minute.
    pub async fn look(&self, address: &HostPort, wanted: Option<&ClusterId>) -> Found {
        let mut found = Found {
            part: Part::new(address.to_string()),
            sockets: Vec::new(),
        };
        let looked = timeout(WHOLE, self.steps(address, wanted, &mut found)).await;
        if looked.is_err() {
            let text = format!("no end after {} s", WHOLE.as_secs());
            found.part.steps.push(Step::bad("time", None, text));
        }
        // The last line is what to type next, whatever it was.
        if !found.part.holds() && found.part.mend.is_none() {
            found.part.mend = Some(match (found.part.rejection(), wanted) {
                (Some(rejection), _) => mend(rejection, wanted),
                (None, Some(peer)) => format!(
                    "emccd cluster refresh {peer} here, and emccd doctor on {peer}: it answers, and not as a node should"
                ),
                (None, None) => {
                    "emccd doctor on the other side: it answers, and not as a node should"
                        .to_owned()
                }
            });
        }
        found
    }

    async fn steps(&self, address: &HostPort, wanted: Option<&ClusterId>, found: &mut Found) {
        let Some(socket) = self.connect(address, wanted, found).await else {
            return;
        };
        let part = &mut found.part;
        let chain = self.shown(address, socket, part).await;
        let Some(chain) = chain else {
            part.mend = part
                .mend
                .take()
                .or_else(|| part.rejection().map(|rejection| mend(rejection, wanted)));
            return;
        };
        let failed = part.rejection();
        let snapshot = self.trust.snapshot();
        part.steps.extend(own(&snapshot, &chain));
        let now = self.trust.clock().now();
        let case = Case {
            bundles: snapshot.bundles(),
            chain: &chain,
            direction: Direction::Server,
            wanted,
            now,
        };
        let explained = case.explain();
        let verdict = explained.verdict.clone();
        part.judged(explained);
        if let Some(rejection) = failed {
            part.mend = Some(mend(rejection, wanted));
            return;
        }
        let Verdict::Peer(cluster) = verdict else {
            let text = "not asked: we do not go on with what we refuse";
            part.steps.push(Step::noted(OURS, text));
            return;
        };
        part.steps.push(as_caller(&snapshot, &cluster, &chain, now));
        self.ours(address, socket, &cluster, &snapshot, part).await;
    }

    /// A socket of the address that can be reached.
    async fn connect(
        &self,
        address: &HostPort,
        wanted: Option<&ClusterId>,
        found: &mut Found,
    ) -> Option<SocketAddr> {
        let waited = self.config.connect_timeout.max(NAME_SERVICE);
        let text = address.to_string();
        let looked = timeout(waited, Lookups::default().resolve(&text)).await;
        let part = &mut found.part;
        let sockets = match looked {
            Ok(Ok(sockets)) if !sockets.is_empty() => sockets,
            other => {
                let why = match other {
                    Err(_) => format!(
                        "the name service did not answer within {} ms",
                        waited.as_millis()
                    ),
                    Ok(Err(source)) => {
                        format!("{} has no address: {}", address.host, with_sources(&source))
                    }
                    Ok(Ok(_)) => format!("{} has no address", address.host),
                };
                part.steps.push(Step::bad("name", None, why));
                part.mend = Some(corrected(
                    wanted,
                    "check the spelling and the name service (getent hosts)",
                ));
                return None;
            }
        };
        found.sockets.clone_from(&sockets);
        let all: Vec<_> = sockets
            .iter()
            .map(|socket| socket.ip().to_string())
            .collect();
        part.steps
            .push(if address.host.parse::<std::net::IpAddr>().is_ok() {
                Step::noted("name", "an IP address: there is no name to look up")
            } else {
                Step::good("name", format!("{} is {}", address.host, all.join(", ")))
            });
        let mut failures = Vec::new();
        for socket in sockets.into_iter().take(MAX_RESOLVED) {
            match self.tcp(socket).await {
                Ok(_) => {
                    let step = Step::good("TCP", format!("connected to {socket}"));
                    part.steps.push(step.with(failures));
                    return Some(socket);
                }
                Err(why) => failures.push(format!("{socket}: {why}")),
            }
        }
        let step = Step::bad("TCP", None, "no connection");
        part.steps.push(step.with(failures));
        part.mend = Some(corrected(
            wanted,
            "look whether a node runs there and listens on that port, and at the firewalls between",
        ));
        None
    }

    async fn tcp(&self, socket: SocketAddr) -> Result<TcpStream, String> {
        let waited = self.config.connect_timeout;
        match timeout(waited, TcpStream::connect(socket)).await {
            Ok(Ok(tcp)) => Ok(tcp),
            Ok(Err(source)) => Err(source.to_string()),
            Err(_) => Err(format!("no answer within {} ms", waited.as_millis())),
        }
    }

    /// What the server shows; none when it comes to no certificate. A server of old TLS shows it too, and is told as
    /// that.
    async fn shown(
        &self,
        address: &HostPort,
        socket: SocketAddr,
        part: &mut Part,
    ) -> Option<Vec<CertificateDer<'static>>> {
        match self.capture(address, socket, &TLS13).await {
            Ok(chain) => {
                let text = format!("TLS 1.3; {} shown", certificates(chain.len()));
                part.steps.push(Step::good(TLS, text));
                Some(chain)
            }
            Err(Refused::As(Rejection::TlsVersion)) => {
                let why = Some(Rejection::TlsVersion);
                let older = self.capture(address, socket, &TLS12).await.ok();
                let text = match &older {
                    Some(_) => "it speaks TLS 1.2 and not TLS 1.3",
                    None => "it speaks neither TLS 1.3 nor TLS 1.2",
                };
                part.steps.push(Step::bad(TLS, why, text));
                older
            }
            Err(Refused::As(rejection)) => {
                let text = match rejection {
                    Rejection::Plaintext => "what answers there is not TLS: another service, or TLS ended in front of it".to_owned(),
                    other => format!("it refused the handshake: {other}"),
                };
                part.steps.push(Step::bad(TLS, Some(rejection), text));
                None
            }
            Err(Refused::Otherwise(text)) => {
                part.steps.push(Step::bad(TLS, None, text));
                part.mend = Some(
                    "look whether this is the federation listener of emccd (emccd config show there), or something \
                     else that listens on that port"
                        .to_owned(),
                );
                None
            }
        }
    }

    async fn capture(
        &self,
        address: &HostPort,
        socket: SocketAddr,
        version: &'static SupportedProtocolVersion,
    ) -> Result<Vec<CertificateDer<'static>>, Refused> {
        let seen = Arc::new(Capture::new(provider()));
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .map_err(|error| Refused::Otherwise(error.to_string()))?;
        let mut config = config
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&seen) as Arc<dyn ServerCertVerifier>)
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        let name = ServerName::try_from(address.host.clone())
            .map_err(|error| Refused::Otherwise(error.to_string()))?;
        let tcp = self.tcp(socket).await.map_err(Refused::Otherwise)?;
        let waited = self.config.hello_timeout;
        let shaken = timeout(
            waited,
            TlsConnector::from(Arc::new(config)).connect(name, tcp),
        )
        .await;
        let chain = seen.take();
        if !chain.is_empty() {
            return Ok(chain);
        }
        let error = match shaken {
            Ok(Err(error)) => error,
            Ok(Ok(_)) => io::Error::other("the handshake ended without a certificate"),
            Err(_) => {
                let text = format!(
                    "no answer to the TLS handshake within {} ms: it may not speak TLS, or hang",
                    waited.as_millis()
                );
                return Err(Refused::Otherwise(text));
            }
        };
        Err(match rejection_of(&error) {
            Some(rejection) => Refused::As(rejection),
            None if is_alert(&error) => {
                Refused::Otherwise(format!("it ended the handshake: {}", with_sources(&error)))
            }
            None => Refused::Otherwise(format!("the handshake failed: {}", with_sources(&error))),
        })
    }

    /// What the server says of our certificate, asked as a link asks.
    async fn ours(
        &self,
        address: &HostPort,
        socket: SocketAddr,
        cluster: &ClusterId,
        snapshot: &Snapshot,
        part: &mut Part,
    ) {
        let dialer = Dialer {
            transport: &TcpTls,
            cluster,
            trust: &self.trust,
            snapshot,
            connect_timeout: self.config.connect_timeout,
            handshake_timeout: self.config.hello_timeout,
        };
        let shown = shown_to(snapshot, cluster)
            .map_or_else(|| "none".to_owned(), |f| format!("SHA-256 {f}"));
        let connection = match dialer.dial(&address.to_string(), socket).await {
            Ok(connection) => connection,
            Err(error) => {
                let text = with_sources(&error);
                part.steps.push(Step::bad(OURS, error.rejection(), text));
                part.mend = part
                    .mend
                    .take()
                    .or_else(|| Some("emccd cert show".to_owned()));
                return;
            }
        };
        let sent = self.clock.now();
        let mut client = Client::new(connection.channel);
        let answer = timeout(self.config.hello_timeout, client.hello(self.hello(sent))).await;
        let received = self.clock.now();
        // It read its clock about half way between our two readings.
        let half_way = sent.plus(received.since(sent) / 2);
        match answer {
            Ok(Ok(answer)) => match Hello::try_from(answer.into_inner()) {
                Ok(hello) => {
                    let text = format!("{cluster} accepts our certificate ({shown})");
                    part.steps.push(Step::good(OURS, text));
                    let step = introduced(&hello, cluster);
                    if let Some(rejection) = step.rejection {
                        part.mend = Some(mend(rejection, Some(cluster)));
                    }
                    part.steps.push(step);
                    part.steps.push(clock(hello.now, half_way));
                }
                Err(malformed) => {
                    let text = format!("Hello was answered with {malformed}");
                    part.steps.push(Step::bad(OURS, None, bounded(&text)));
                }
            },
            Ok(Err(refusal)) => {
                let told = status::rejection_time(&refusal);
                self.refused(cluster, &shown, &refusal, part);
                part.steps
                    .extend(told.map(|theirs| clock(theirs, half_way)));
            }
            Err(_) => {
                let text = format!(
                    "no answer to Hello within {} ms",
                    self.config.hello_timeout.as_millis()
                );
                part.steps.push(Step::bad(OURS, None, text));
            }
        }
    }

    fn hello(&self, now: Timestamp) -> Request<pb::HelloRequest> {
        let message = self.config.hello(now, Sequences::default());
        let mut request = Request::new(pb::HelloRequest::from(&message));
        let (own, version) = (&self.config.cluster_id, self.config.versions.min());
        metadata::write(
            request.metadata_mut(),
            own,
            version,
            new_reference(&self.config.chance),
        );
        request.set_timeout(self.config.hello_timeout);
        request
    }

    fn refused(&self, cluster: &ClusterId, shown: &str, refusal: &Status, part: &mut Part) {
        let rejection = status::rejection_from_status(refusal).or_else(|| alert_rejection(refusal));
        let Some(rejection) = rejection else {
            let said = status::from_status(refusal, cluster).to_string();
            part.steps.push(Step::bad(OURS, None, bounded(&said)));
            return;
        };
        let text = format!("{cluster} refuses our certificate ({shown}): {rejection}");
        part.steps.push(Step::bad(OURS, Some(rejection), text));
        part.mend = Some(mend_ours(rejection, &self.config.cluster_id, cluster));
    }
}

/// The name service may be slower than a peer.
const NAME_SERVICE: Duration = Duration::from_secs(5);
const TLS: &str = "TLS";
const OURS: &str = "our certificate";

/// Why there is no certificate to see.
enum Refused {
    As(Rejection),
    Otherwise(String),
}

fn corrected(wanted: Option<&ClusterId>, first: &str) -> String {
    match wanted {
        Some(peer) => {
            format!("{first}; correct it with: emccd cluster set {peer} --address HOST:PORT")
        }
        None => first.to_owned(),
    }
}

fn certificates(number: usize) -> String {
    match number {
        1 => "one certificate is".to_owned(),
        n => format!("{n} certificates are"),
    }
}

/// The address may lead back to this node.
fn own(snapshot: &Snapshot, chain: &[CertificateDer<'_>]) -> Option<Step> {
    let leaf = fingerprint_of(chain.first()?);
    let ours = snapshot.identity().map(|identity| identity.leaf());
    ours.filter(|ours| ours.fingerprint() == leaf).map(|_| {
        let text = "it is this node's own certificate: the address leads back here";
        Step::noted("whose", text)
    })
}

/// The same certificate in the other direction, since most nodes call with the one that they show.
fn as_caller(
    snapshot: &Snapshot,
    cluster: &ClusterId,
    chain: &[CertificateDer<'_>],
    now: Timestamp,
) -> Step {
    const NAME: &str = "as caller";
    let verdict = judge_as(snapshot.bundles(), cluster, chain, Direction::Client, now);
    match verdict.rejection() {
        None => Step::good(NAME, "it would be accepted in the other direction, too"),
        Some(rejection) => Step::noted(
            NAME,
            format!(
                "were it to call us with the same certificate, we should refuse it: {rejection}"
            ),
        ),
    }
}

fn introduced(hello: &Hello, cluster: &ClusterId) -> Step {
    const NAME: &str = "cluster";
    if hello.cluster_id == *cluster {
        let text = format!("{cluster}, node {}, {}", hello.node, hello.software);
        return Step::good(NAME, bounded(&text));
    }
    let text = format!("it says that it is {}, and not {cluster}", hello.cluster_id);
    Step::bad(NAME, Some(Rejection::WrongCluster), text)
}

fn clock(theirs: Timestamp, ours: Timestamp) -> Step {
    const NAME: &str = "clock";
    /// As `cluster status` remarks on it.
    const NOTED: u64 = 60_000;
    let offset = offset_ms(theirs, ours);
    let which = if offset > 0 { "ahead of" } else { "behind" };
    let text = format!("its clock is {} ms {which} ours", offset.unsigned_abs());
    if offset.unsigned_abs() > NOTED {
        Step::noted(NAME, format!("{text}: compare both with timedatectl"))
    } else {
        Step::good(NAME, text)
    }
}

/// Takes down what is shown and fails.
#[derive(Debug)]
struct Capture {
    provider: Arc<CryptoProvider>,
    chain: Mutex<Vec<CertificateDer<'static>>>,
}

impl Capture {
    fn new(provider: Arc<CryptoProvider>) -> Self {
        Self {
            provider,
            chain: Mutex::default(),
        }
    }

    fn take(&self) -> Vec<CertificateDer<'static>> {
        std::mem::take(&mut self.chain.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Its alert says nothing about a certificate, so that nobody's door takes it for a refusal.
fn enough() -> TlsError {
    TlsError::General("only looking".to_owned())
}

impl ServerCertVerifier for Capture {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let chain = std::iter::once(leaf).chain(others);
        *self.chain.lock().unwrap_or_else(PoisonError::into_inner) =
            chain.map(|der| der.clone().into_owned()).collect();
        Err(enough())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(enough())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(enough())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
