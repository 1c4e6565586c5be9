//! Which cluster is home: local users first, then the hint, then every peer at once. No PIN travels here.

use std::{sync::Arc, time::Instant};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tracing::{error, warn};

use super::{Error, Inner};
use crate::{
    clock,
    domain::{
        em_code::EmCode,
        federation::Claim,
        ids::{ClusterId, LoginName, Ref},
        locate::{Asked, Located, PeerAnswer, decide, early, split_suffix},
        login::{Context, FindUser, HomeCluster, Ownership},
        refusal::{Detail, Refusal},
    },
    store::{Transaction, hints},
};

/// A home cluster, the name it knows the user by, and how we came to it.
pub(super) struct Home {
    pub(super) cluster: Arc<dyn HomeCluster>,
    pub(super) query: FindUser,
    /// From the cache: when it turns out wrong, the search goes on without it.
    pub(super) from_hint: bool,
}

/// Whether the cache may be believed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Hints {
    Ignore,
    Use,
}

pub(super) async fn locate(
    inner: &Inner,
    query: &FindUser,
    reference: Ref,
    deadline: Instant,
    hints: Hints,
) -> Result<Home, Error> {
    let left = deadline.saturating_duration_since(clock::instant());
    let context = inner.context(reference, inner.config.find_deadline.min(left));
    if inner
        .local
        .find_user(&context, query)
        .await
        .map_err(Error::NotLocated)?
        != Ownership::NotMine
    {
        // Several local users are home's to refuse, with its own code.
        return Ok(Home {
            cluster: Arc::clone(&inner.local),
            query: query.clone(),
            from_hint: false,
        });
    }
    if let Some(home) = by_suffix(inner, &context, query).await? {
        return Ok(home);
    }
    if hints == Hints::Use
        && let Some(cluster) = hinted(inner, query, deadline).await?
    {
        return Ok(Home {
            cluster,
            query: query.clone(),
            from_hint: true,
        });
    }
    by_asking(inner, &context, query).await
}

/// `x@y` where y is a known cluster: only there, by the whole name and then without the suffix.
async fn by_suffix(
    inner: &Inner,
    context: &Context,
    query: &FindUser,
) -> Result<Option<Home>, Error> {
    let Some((name, suffix)) = split_suffix(query.name.as_str()) else {
        return Ok(None);
    };
    let Some(home) = ClusterId::new(suffix).ok().and_then(|id| inner.home(&id)) else {
        return Ok(None);
    };
    let Ok(name) = LoginName::new(name) else {
        return Ok(None);
    };
    let bare = FindUser {
        login_type: query.login_type,
        name,
    };
    let local = *home.cluster_id() == inner.config.cluster;
    for candidate in [query, &bare] {
        if !local && inner.federation.claim(home.cluster_id(), candidate) == Claim::Excluded {
            continue;
        }
        match home
            .find_user(context, candidate)
            .await
            .map_err(Error::NotLocated)?
        {
            Ownership::NotMine => {}
            Ownership::Mine => {
                return Ok(Some(Home {
                    cluster: home,
                    query: candidate.clone(),
                    from_hint: false,
                }));
            }
            Ownership::SeveralUsers => {
                let cause = format!(
                    "the extension belongs to several users of cluster {}",
                    home.cluster_id()
                );
                let code = if local {
                    EmCode::DnHasMultipleUsers
                } else {
                    EmCode::DnHasMultipleUsersRemote
                };
                return Err(Error::NotLocated(Refusal::new(code, cause)));
            }
        }
    }
    let cause = format!(
        "cluster {} named in the user ID has no such user",
        home.cluster_id()
    );
    Err(Error::NotLocated(Refusal::new(
        EmCode::UserDoesNotExist,
        cause,
    )))
}

async fn hinted(
    inner: &Inner,
    query: &FindUser,
    deadline: Instant,
) -> Result<Option<Arc<dyn HomeCluster>>, Error> {
    let (login_type, name) = (query.login_type, query.name.clone());
    let hint = inner
        .look_up(deadline, move |tx: &mut dyn Transaction| {
            Ok::<_, Error>(hints::get(tx, login_type, &name)?)
        })
        .await?;
    // What the operator has since said of the peer's names counts more than what once worked.
    let hint = hint.filter(|cluster| inner.federation.claim(cluster, query) != Claim::Excluded);
    Ok(hint.and_then(|cluster| {
        inner
            .federation
            .enabled()
            .into_iter()
            .find(|home| *home.cluster_id() == cluster)
    }))
}

async fn by_asking(inner: &Inner, context: &Context, query: &FindUser) -> Result<Home, Error> {
    let peers = inner.federation.enabled();
    if peers.is_empty() {
        return Err(Error::NoPeers);
    }
    let located = ask_all(inner, &peers, context, query).await;
    match located {
        Located::Home(cluster) => {
            let home = peers.into_iter().find(|peer| *peer.cluster_id() == cluster);
            let cluster = home.ok_or(Error::NoPeers)?;
            Ok(Home {
                cluster,
                query: query.clone(),
                from_hint: false,
            })
        }
        Located::Refused(refusal) => Err(Error::NotLocated(refusal)),
        Located::Ambiguous(claimers, refusal) => {
            let names = claimers
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", ");
            error!(
                alarm = "home_ambiguous", peer.cluster_ids = names, r#ref = %context.reference,
                "several clusters claim one name: {names}"
            );
            Err(Error::NotLocated(refusal))
        }
    }
}

/// Asks every peer that may own the name, at once. It ends as soon as no outstanding answer can matter.
async fn ask_all(
    inner: &Inner,
    peers: &[Arc<dyn HomeCluster>],
    context: &Context,
    query: &FindUser,
) -> Located {
    let mut answered = Vec::new();
    let mut outstanding = FuturesUnordered::new();
    for peer in peers {
        let cluster = peer.cluster_id();
        let claim = inner.federation.claim(cluster, query);
        match claim {
            Claim::Excluded => answered.push(Asked {
                cluster: cluster.clone(),
                pattern_admits: false,
                answer: PeerAnswer::NotMine,
            }),
            Claim::Admitted | Claim::Unrestricted => {
                outstanding.push(ask(peer.as_ref(), context, query, claim));
            }
        }
    }
    while let Some(asked) = outstanding.next().await {
        answered.push(asked);
        if let Some(located) = early(query.login_type, &answered) {
            return located;
        }
    }
    decide(query.login_type, &answered)
}

async fn ask(peer: &dyn HomeCluster, context: &Context, query: &FindUser, claim: Claim) -> Asked {
    let cluster = peer.cluster_id().clone();
    let began = clock::instant();
    let answer =
        tokio::time::timeout_at(context.deadline.into(), peer.find_user(context, query)).await;
    let answer = match answer {
        Ok(Ok(Ownership::Mine)) => PeerAnswer::Mine,
        Ok(Ok(Ownership::NotMine)) => PeerAnswer::NotMine,
        Ok(Ok(Ownership::SeveralUsers)) => PeerAnswer::SeveralUsers,
        Ok(Err(refusal)) => {
            warn!(
                peer.cluster_id = %cluster, r#ref = %context.reference, em_code = refusal.code.number(),
                cause = refusal.cause, "cluster {cluster} did not say whether a user is its own"
            );
            unanswered(refusal)
        }
        Err(_) => PeerAnswer::Silent(format!(
            "no answer within {} ms",
            clock::since(began).as_millis()
        )),
    };
    Asked {
        pattern_admits: claim == Claim::Admitted,
        cluster,
        answer,
    }
}

/// What a peer that gave no answer means for the search. Only the version that lacks the login type says that
/// none of its users can be meant.
fn unanswered(refusal: Refusal) -> PeerAnswer {
    match refusal.code {
        EmCode::ErrorOnParsing if refusal.detail == Detail::LacksLoginType => {
            PeerAnswer::Incompatible(refusal.cause)
        }
        EmCode::ErrorOnParsing => PeerAnswer::Unaskable(refusal.cause),
        EmCode::VisitingClusterUnknown | EmCode::EmccNotAllowed | EmCode::InvalidClusterId => {
            PeerAnswer::Declined(refusal.code, refusal.cause)
        }
        EmCode::ServiceConnectionError => PeerAnswer::Refused(refusal.cause),
        // It is there, and busy or ailing: the next try may find it well.
        _ => PeerAnswer::Silent(refusal.cause),
    }
}
