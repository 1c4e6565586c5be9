//! What rotations on record say of what is shown, and of what comes next.

use super::{mirror::Next, operations::NodeOperations};
use crate::{
    domain::rotation::{Phase, Rotation},
    edge::admin::{error::Error, rotation_next::Held},
    store::{
        self, Transaction,
        rotations::{self, Row},
    },
    trust::certificate::fingerprint_text,
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

    /// Refuses to call what is in the files in use where a rotation says what is shown, and they hold something else.
    pub(super) async fn check_files(&self) -> Result<(), Error> {
        let rows = self.rotations().await?.into_iter();
        for row in rows.filter(|row| row.name.node == self.node) {
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
        Ok(())
    }
}
