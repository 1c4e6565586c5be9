//! What is due by the calendar.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{info, warn};

use super::{Driver, Problem};
use crate::{
    domain::{
        ids::ClusterId,
        rotation::{
            Name,
            gates::Named,
            schedule::{self, Due, Schedule, Shown},
        },
    },
    store::{
        self, Transaction,
        rotations::{self, Recipe},
    },
    telemetry::error_chain,
    trust::{
        identity::Identity,
        rotation::{self, Doer},
    },
};

/// When people are asked again to go to an authority, or to see to what is in the way of the next certificate.
const ASK_AGAIN: Duration = Duration::from_secs(86_400);

/// When people were last asked, for each identity.
pub(super) type Asked = BTreeMap<Name, Instant>;

impl Driver {
    /// What the cluster goes by now.
    pub(super) fn schedule(&self) -> Schedule {
        let parameters = self.reloader.parameters().load();
        let days = |n: u32| Duration::from_secs(86_400) * n;
        Schedule {
            renew_before: days(parameters.certificate_renew_before),
            jitter: days(parameters.certificate_renew_jitter),
            override_before: days(parameters.certificate_renew_override_before),
        }
    }

    /// Does what is due of all identities.
    pub(super) async fn keep_schedule(&self, schedule: &Schedule, asked: &mut Asked) {
        for shown in self.reloader.shown() {
            let Some(identity) = shown.identity else {
                continue;
            };
            if schedule.renew_before.is_zero() {
                self.alarms().set_authority(shown.purpose, false);
                self.alarms().set_next(shown.purpose, false);
                continue;
            }
            let name = Name {
                node: self.node.clone(),
                purpose: shown.purpose,
            };
            let kept = self.keep_to(schedule, &name, &identity, asked).await;
            let of = format!("the schedule of {name}");
            match kept.map_err(|problem| error_chain(&problem)) {
                Ok(()) => self.memory.news.is_over(&of),
                Err(cause) if self.memory.news.is_news(&of, &cause) => {
                    warn!(identity = %name, cause, "the schedule of certificates could not be kept; it is tried again");
                }
                Err(_) => {}
            }
        }
    }

    async fn keep_to(
        &self,
        schedule: &Schedule,
        name: &Name,
        identity: &Identity,
        asked: &mut Asked,
    ) -> Result<(), Problem> {
        let read = name.clone();
        let found = self.store.read(move |tx: &mut dyn Transaction| {
            Ok::<_, store::Error>((rotations::get(tx, &read)?, rotations::told(tx, &read)?))
        });
        let (row, peers) = found.await?;
        let leaf = identity.leaf();
        let shown = Shown {
            fingerprint: leaf.fingerprint(),
            not_before: leaf.not_before(),
            not_after: leaf.not_after(),
            old_ends: row.as_ref().and_then(|row| row.old_ends),
            is_self_signed: leaf.subject() == leaf.issuer(),
        };
        let now = self.clock.now();
        let rotation = row.as_ref().map(|row| &row.rotation);
        let due = schedule::due(schedule, now, name, &shown, rotation, &peers);
        self.alarms()
            .set_authority(name.purpose, schedule::asks_authority(&due, &shown));
        self.alarms().set_next(name.purpose, due == Due::Retire);
        match due {
            Due::Nothing => Ok(()),
            Due::AskAuthority => {
                if is_to_ask(asked, name) {
                    warn!(
                        identity = %name, not_after = %shown.not_after,
                        "ALARM: it is time for a new certificate from the authority: emccd cert rotate announce --from FILE --key-file FILE takes it"
                    );
                }
                Ok(())
            }
            Due::Announce => {
                self.by_calendar(name, |tx, name, doer| {
                    rotation::announce(tx, name, &Recipe::default(), true, doer)
                })
                .await?;
                info!(identity = %name, not_after = %shown.not_after, "it is time for a new certificate");
                Ok(())
            }
            Due::ActivateWithout(behind) => {
                let named = Named {
                    overridden: behind.clone(),
                    ..Named::default()
                };
                let is_done = self
                    .by_calendar(name, move |tx, name, doer| {
                        rotation::activate(tx, name, &named, doer)
                    })
                    .await?;
                match (is_done, behind.is_empty()) {
                    (false, _) => {}
                    (true, true) => warn!(
                        identity = %name, not_after = %shown.not_after,
                        "ALARM: the certificate ends soon, and the next one lay ready with all peers: it is shown now"
                    ),
                    (true, false) => warn!(
                        identity = %name, peers = list(&behind), not_after = %shown.not_after,
                        "ALARM: the certificate ends soon, and these peers have not said that they have the next one: it is \
                         shown without them"
                    ),
                }
                Ok(())
            }
            Due::Retire => {
                let is_done = self.by_calendar(name, rotation::retire).await?;
                if !is_done && is_to_ask(asked, name) {
                    warn!(
                        identity = %name, not_after = %shown.not_after,
                        "ALARM: it is time for the next certificate, and the last exchange is not over: peers or connections \
                         still need the certificate from before, and emccd cert rotate status names them; shortly before the \
                         end it goes without them"
                    );
                }
                Ok(())
            }
            Due::RetireWithout(behind) => {
                let without = behind.clone();
                let is_done = self
                    .by_calendar(name, move |tx, name, doer| {
                        rotation::retire_without(tx, name, &without, doer)
                    })
                    .await?;
                if is_done && !behind.is_empty() {
                    warn!(
                        identity = %name, peers = list(&behind),
                        "ALARM: the certificate from before has to go, and these peers have not said that they have the next \
                         one: it goes without them, and their operators have to add what is shown by hand"
                    );
                }
                Ok(())
            }
        }
    }

    /// Whether it was done. A gate that is shut, since something changed meanwhile, is looked at again.
    async fn by_calendar(
        &self,
        name: &Name,
        step: impl Fn(&mut dyn Transaction, &Name, &Doer) -> Result<rotations::Row, rotation::Error>
        + Send
        + 'static,
    ) -> Result<bool, Problem> {
        let (of, doer) = (name.clone(), Doer::node(self.clock.now()));
        let done = self
            .store
            .write(move |tx: &mut dyn Transaction| step(tx, &of, &doer));
        match done.await {
            Ok(_) => Ok(true),
            Err(rotation::Error::Shut { .. } | rotation::Error::Missing(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether people are to be asked now; then they have been.
fn is_to_ask(asked: &mut Asked, name: &Name) -> bool {
    let before = asked.get(name);
    let is_to_ask = before.is_none_or(|at| at.elapsed() >= ASK_AGAIN);
    if is_to_ask {
        asked.insert(name.clone(), Instant::now());
    }
    is_to_ask
}

fn list(peers: &BTreeSet<ClusterId>) -> String {
    let peers: Vec<_> = peers.iter().map(ClusterId::as_str).collect();
    peers.join(", ")
}
