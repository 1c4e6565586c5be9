//! A caller on the federation port that sends what it likes, and looks at what comes back.

use std::sync::Arc;

use bytes::Bytes;
use emccd::{
    lab::{Cluster, Lab},
    tasks::Tasks,
    wire::pb,
};
use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, SupportedProtocolVersion, version::TLS13};
use rustls_pki_types::ServerName;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::PATIENCE;
use crate::support::tls;

const SERVICE: &str = "/emcc.federation.v1.FederationService";

/// Who dials: with the identity of a cluster's node, or with none.
pub(super) fn tls_config(
    server: &Cluster,
    caller: Option<&Cluster>,
    version: &'static SupportedProtocolVersion,
) -> ClientConfig {
    tls::federation_client(server, caller.map(tls::identity_of), &[version])
}

pub(super) async fn tcp(server: &Cluster) -> TcpStream {
    TcpStream::connect(&server.member().unwrap().addresses.federation)
        .await
        .unwrap()
}

pub(super) async fn dial(server: &Cluster, caller: Option<&Cluster>) -> TlsStream<TcpStream> {
    let connector = TlsConnector::from(Arc::new(tls_config(server, caller, &TLS13)));
    connector
        .connect(
            ServerName::try_from("127.0.0.1").unwrap(),
            tcp(server).await,
        )
        .await
        .unwrap()
}

/// A connection of one cluster, as a rule the second, to another, as a rule the first, that sends any bytes in any request.
pub(super) struct Raw {
    pub(super) send: SendRequest<Full<Bytes>>,
    _tasks: Tasks,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) http: u16,
    pub(super) status: Option<Status>,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn status(&self) -> &Status {
        self.status
            .as_ref()
            .unwrap_or_else(|| panic!("no gRPC status: {self:?}"))
    }

    pub(super) fn em_code(&self) -> Option<String> {
        self.status()
            .get_details_error_info()?
            .metadata
            .get("em_code")
            .cloned()
    }

    /// The message of a success.
    pub(super) fn message<M: prost::Message + Default>(&self) -> M {
        assert_eq!(self.status().code(), Code::Ok, "{self:?}");
        M::decode(&self.body[5..]).unwrap()
    }
}

impl Raw {
    pub(super) async fn connect(lab: &Lab) -> Self {
        Self::connect_as(&lab.clusters[0], &lab.clusters[1]).await
    }

    pub(super) async fn connect_as(server: &Cluster, caller: &Cluster) -> Self {
        let stream = dial(server, Some(caller)).await;
        let (send, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
        let tasks = Tasks::default();
        tasks.spawn("raw connection", connection);
        Self {
            send,
            _tasks: tasks,
        }
    }

    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> Answer {
        let what = format!("{} {}", request.method(), request.uri());
        let exchange = async {
            self.send.ready().await.unwrap();
            let answer = self.send.send_request(request).await.unwrap();
            let (head, body) = answer.into_parts();
            let collected = body.collect().await.unwrap();
            let status = Status::from_header_map(&head.headers)
                .or_else(|| collected.trailers().and_then(Status::from_header_map));
            Answer {
                http: head.status.as_u16(),
                status,
                body: collected.to_bytes(),
            }
        };
        timeout(PATIENCE, exchange)
            .await
            .unwrap_or_else(|_| panic!("{what} was never answered"))
    }

    pub(super) async fn call(&mut self, method: &str, body: impl Into<Bytes>) -> Answer {
        let body = body.into();
        self.send(request(method).body(Full::new(body)).unwrap())
            .await
    }

    /// A call with a message that is well formed as far as protobuf goes.
    pub(super) async fn message(&mut self, method: &str, message: &impl prost::Message) -> Answer {
        self.call(method, frame(&message.encode_to_vec())).await
    }
}

pub(super) fn request(method: &str) -> http::request::Builder {
    Request::post(format!("https://127.0.0.1{SERVICE}/{method}"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header("te", "trailers")
        .header("emcc-version", "1.1")
}

/// A message as gRPC sends it: not compressed, its length, its bytes.
pub(super) fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&[0][..], &length.to_be_bytes(), message].concat()
}

pub(super) fn find(name: &str) -> pb::FindUserRequest {
    pb::FindUserRequest {
        login_type: pb::LoginType::Uid.into(),
        name: name.to_owned(),
    }
}
