//! What rotations on record say of what is shown, and of what comes next.

use super::{
    mirror::Next,
    operations::NodeOperations,
    rotation::{replaced_by, tell_given_up},
};
use crate::{
    domain::{
        purpose::Purpose,
        rotation::{Fingerprint, Phase, Rotation},
    },
    edge::admin::{error::Error, rotation_next::Held},
    store::{
        self, Transaction,
        rotations::{self, Row},
    },
    trust::{
        InForce,
        certificate::fingerprint_text,
        rotation::{self, Doer},
    },
};

impl NodeOperations {
    /// What nodes of ours have announced and don't show yet. Of others than this one only the certificate is known, and
    /// not what is sent with it.
    pub(super) async fn announced(&self) -> Result<Vec<Next>, Error> {
        let rows = self.rotations().await?.into_iter();
        let announced = rows
            .filter(|row| row.rotation.phase == Phase::Announced && row.name.purpose.is_of_peers());
        let announced: Vec<_> = announced.collect();
        if announced.is_empty() {
            return Ok(Vec::new());
        }
        let (folder, own) = (self.reloader.folder().clone(), self.node.clone());
        let found = tokio::task::spawn_blocking(move || {
            let all = announced.into_iter().filter_map(|row| {
                let new = row.rotation.new?;
                let here = (row.name.node == own).then(|| folder.find(row.name.purpose, &new));
                let chain = match here {
                    Some(Ok(identity)) => {
                        identity.chain().iter().map(|c| c.fingerprint()).collect()
                    }
                    Some(Err(_)) | None => vec![new],
                };
                Some(Next {
                    node: row.name.node,
                    purpose: row.name.purpose,
                    chain,
                })
            });
            all.collect()
        });
        Ok(found.await.unwrap_or_default())
    }

    async fn rotations(&self) -> Result<Vec<Row>, store::Error> {
        self.store
            .read(|tx: &mut dyn Transaction| rotations::all(tx))
            .await
    }

    /// Refuses to read the files where a rotation says what is shown, and they hold something else. One of which nothing
    /// can be shown any more ends for what is in them, if that can be.
    pub(super) async fn check_files(&self, actor: &str) -> Result<(), Error> {
        let mut rows = self.rotations().await?;
        rows.retain(|row| row.name.node == self.node);
        for purpose in Purpose::ALL {
            if !rows.iter().any(|row| row.name.purpose == purpose) {
                // What the last one left in force is over.
                self.reloader.say(purpose, InForce::default());
            }
        }
        let mut over = Vec::new();
        for row in rows {
            if let Some(configured) = self.replaced_by(&row).await {
                over.push((row, configured));
                continue;
            }
            let (folder, purpose) = (self.reloader.folder().clone(), row.name.purpose);
            let configured = tokio::task::spawn_blocking(move || {
                folder.configured(purpose).map(|i| i.leaf().fingerprint())
            });
            let Ok(Ok(configured)) = configured.await else {
                // What is wrong with them the reading has told.
                continue;
            };
            let Rotation {
                old, new, phase, ..
            } = row.rotation;
            let is_of_it = [old, new].contains(&Some(configured));
            if phase == Phase::Requested || is_of_it {
                continue;
            }
            let held = Held::of(&self.cluster, &row.name, phase, new);
            return Err(Error::refused(
                format!(
                    "the files of {} hold {}, and what is shown is what a rotation says that is on record ({phase})",
                    row.name,
                    fingerprint_text(&configured)
                ),
                held.way_on(),
            ));
        }
        // Nothing is given up for files that are refused.
        for (row, configured) in over {
            self.give_up(&row, configured, actor).await?;
        }
        Ok(())
    }

    /// What is configured in place of a rotation of which nothing can be shown any more, if that can be.
    async fn replaced_by(&self, row: &Row) -> Option<Fingerprint> {
        let (folder, row) = (self.reloader.folder().clone(), row.clone());
        let now = self.clock.now();
        let replaced = tokio::task::spawn_blocking(move || replaced_by(&row, &folder, now));
        replaced.await.ok().flatten()
    }

    async fn give_up(&self, row: &Row, configured: Fingerprint, actor: &str) -> Result<(), Error> {
        let now = self.clock.now();
        let doer = Doer {
            actor: actor.to_owned(),
            at: now,
        };
        let of = row.clone();
        let given_up = self
            .store
            .write(move |tx: &mut dyn Transaction| rotation::give_up(tx, &of, configured, &doer));
        if given_up.await? {
            tell_given_up(row, &configured);
        } else if self.rotations().await?.iter().any(|it| it.name == row.name) {
            // It has gone on meanwhile, and goes on to say what is shown.
            return Ok(());
        }
        // Where the driver was first, it is over as well.
        self.reloader.say(row.name.purpose, InForce::default());
        Ok(())
    }
}
