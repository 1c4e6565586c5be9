//! The service for those who come to join, `emcc.join.v1`: what a call says is read, and the pairing decides.

use tonic::{Request, Response, Status, service::Routes};
use tracing::error;

use crate::{
    domain::{bounds::is_line, pairing::InvitationId},
    edge::listener::{JoiningDoor, Stranger},
    pairing::{
        Pairings,
        invite::{Guest, Turned},
        proof::{EXPORTER_LABEL, View},
    },
    wire::join::{
        self as pb,
        join_service_server::{JoinService, JoinServiceServer},
    },
};

/// The door for those who come to join.
#[must_use]
pub fn door(pairings: Pairings) -> JoiningDoor {
    let service = JoinServiceServer::new(JoinEdge(pairings.clone()))
        .max_decoding_message_size(MAX_REQUEST_BYTES);
    JoiningDoor::new(Routes::new(service), EXPORTER_LABEL, move || {
        pairings.is_open()
    })
}

/// All certificates of a large cluster.
const MAX_REQUEST_BYTES: usize = 2 * 1024 * 1024;

/// Why a cluster can't follow.
const MAX_REASON_BYTES: usize = 255;

struct JoinEdge(Pairings);

#[tonic::async_trait]
impl JoinService for JoinEdge {
    async fn begin(
        &self,
        request: Request<pb::BeginRequest>,
    ) -> Result<Response<pb::BeginResponse>, Status> {
        let stranger = stranger(&request)?;
        let request = request.into_inner();
        let id = invitation(&request.invitation_id)?;
        let view = request.view.unwrap_or_default();
        let claimed = View {
            exporter: digest(&view.exporter)?,
            caller_leaf: digest(&view.caller_leaf)?,
            server_leaf: digest(&view.server_leaf)?,
        };
        let begun = self.0.begin(guest(&stranger), id, claimed, request.proof);
        let proof = begun.await.map_err(|turned| {
            stranger.is_turned_away();
            status(&turned)
        })?;
        stranger.is_proven();
        Ok(Response::new(pb::BeginResponse { proof }))
    }

    async fn exchange(
        &self,
        request: Request<pb::ExchangeRequest>,
    ) -> Result<Response<pb::ExchangeResponse>, Status> {
        let stranger = stranger(&request)?;
        let request = request.into_inner();
        let id = invitation(&request.invitation_id)?;
        self.admit(&stranger, id).await?;
        let cluster = request.cluster.unwrap_or_default();
        let exchanged = self.0.exchange(guest(&stranger), id, cluster);
        let cluster = exchanged.await.map_err(|turned| status(&turned))?;
        Ok(Response::new(pb::ExchangeResponse {
            cluster: Some(cluster),
        }))
    }

    async fn conclude(
        &self,
        request: Request<pb::ConcludeRequest>,
    ) -> Result<Response<pb::ConcludeResponse>, Status> {
        let stranger = stranger(&request)?;
        let request = request.into_inner();
        let id = invitation(&request.invitation_id)?;
        self.admit(&stranger, id).await?;
        if !is_line(&request.reason, MAX_REASON_BYTES) {
            return Err(Status::invalid_argument(
                "a reason is one line of at most 255 bytes",
            ));
        }
        let decision = request.decision();
        let concluded = self
            .0
            .conclude(guest(&stranger), id, decision, request.reason);
        let outcome = concluded.await.map_err(|turned| status(&turned))?;
        Ok(Response::new(pb::ConcludeResponse {
            outcome: outcome.into(),
        }))
    }
}

impl JoinEdge {
    /// Who shows the certificate that an invitation is bound to needs no other proof, and may stay.
    async fn admit(&self, stranger: &Stranger, id: InvitationId) -> Result<(), Status> {
        let bound = self.0.is_bound_to(guest(stranger), id).await;
        bound.map_err(|turned| {
            stranger.is_turned_away();
            status(&turned)
        })?;
        stranger.is_proven();
        Ok(())
    }
}

fn stranger<T>(request: &Request<T>) -> Result<Stranger, Status> {
    let found = request.extensions().get::<Stranger>().cloned();
    found.ok_or_else(|| Status::internal("the connection is not known"))
}

const fn guest(stranger: &Stranger) -> Guest {
    Guest {
        view: View {
            exporter: stranger.exporter,
            caller_leaf: stranger.leaf,
            server_leaf: stranger.shown,
        },
        remote: stranger.remote,
    }
}

fn invitation(bytes: &[u8]) -> Result<InvitationId, Status> {
    let id = bytes.try_into().map(InvitationId);
    id.map_err(|_| Status::invalid_argument("an invitation's ID has 8 bytes"))
}

fn digest(bytes: &[u8]) -> Result<[u8; 32], Status> {
    let digest = bytes.try_into();
    digest.map_err(|_| Status::invalid_argument("each part of the view has 32 bytes"))
}

fn status(turned: &Turned) -> Status {
    let why = turned.to_string();
    match turned {
        Turned::NotOpen => Status::failed_precondition(why),
        Turned::WrongProof => Status::unauthenticated(why),
        Turned::Relayed => Status::aborted(why),
        Turned::Used => Status::already_exists(why),
        Turned::NotBound => Status::permission_denied(why),
        Turned::Unfit(_) => Status::invalid_argument(why),
        Turned::Failed(cause) => {
            error!(
                cause = crate::telemetry::error_chain(cause),
                "a cluster that joins could not be answered"
            );
            Status::unavailable(why)
        }
    }
}
