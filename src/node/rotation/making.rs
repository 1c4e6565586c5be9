//! Makes the next certificate, and takes away what was made for nothing.

use std::{collections::BTreeSet, path::Path};

use tracing::{debug, info};

use super::{Driver, Problem};
use crate::{
    clock::Timestamp,
    domain::{
        purpose::Purpose,
        rotation::{Fingerprint, Phase, Rotation},
    },
    store::{
        self, Transaction,
        rotations::{self, Recipe, Row},
    },
    telemetry::error_chain,
    trust::{
        certificate::{Name as CertificateName, fingerprint_text},
        folder::{Begun, IdentityFolder},
        identity::Identity,
        install::Files,
        make::{self, CertRequest, KeyKind},
        rotation::{self, Doer},
    },
};

/// How long a certificate is valid whose predecessor does not say.
const DAYS: u32 = 825;

impl Driver {
    pub(super) async fn make(&self, row: &Row) -> Result<(), Problem> {
        let purpose = row.name.purpose;
        let before = self.before(purpose).await?;
        let old = before.leaf().fingerprint();
        let ends = before.leaf().not_after();
        // Of an attempt that was cut short.
        self.sweep(purpose).await?;
        let (folder, recipe, now) = (
            self.reloader.folder().clone(),
            row.recipe.clone(),
            self.clock.now(),
        );
        let node = self.node.clone();
        let made = tokio::task::spawn_blocking(move || {
            write_new(&folder, purpose, &node, &before, &recipe, now)
        });
        let begun = made.await.map_err(|_| Problem::Broken)??;
        let new = begun.fingerprint;
        self.faults.pass("rotation.written").await;
        let (name, doer) = (row.name.clone(), Doer::node(now));
        let announced = self.store.write(move |tx: &mut dyn Transaction| {
            rotation::made(tx, &name, (old, ends), new, &doer)
        });
        let announced = announced.await;
        self.faults.pass("rotation.made").await;
        drop(begun);
        // Whatever the store has said, what stands in it decides whether the new one stays.
        let swept = self.sweep(purpose).await;
        announced?;
        swept?;
        info!(identity = %row.name, certificate = fingerprint_text(&new), "a new certificate is announced");
        Ok(())
    }

    /// What is exchanged: what is shown, or else what is configured, even where it has ended.
    async fn before(&self, purpose: Purpose) -> Result<Identity, Problem> {
        if let Some(shown) = self.shown(purpose) {
            return Ok(shown);
        }
        let folder = self.reloader.folder().clone();
        let configured = tokio::task::spawn_blocking(move || folder.configured(purpose));
        let configured = configured.await.map_err(|_| Problem::Broken)?;
        configured.map_err(|_| Problem::NothingShown)
    }

    /// Takes away what was made for a rotation that has never come to name it: killed before, or not wanted any more.
    pub(super) async fn sweep(&self, purpose: Purpose) -> Result<(), Problem> {
        let (folder, node) = (self.reloader.folder().clone(), self.node.clone());
        let left_over = tokio::task::spawn_blocking(move || folder.left_over(purpose, &node));
        let left_over = left_over.await.map_err(|_| Problem::Broken)??;
        if left_over.is_empty() {
            return Ok(());
        }
        let named = self.store.read(|tx: &mut dyn Transaction| {
            // Of all nodes: they may have one folder between them, and the same certificate.
            let rows = rotations::all(tx)?.into_iter();
            let named = rows.flat_map(|row| [row.rotation.old, row.rotation.new]);
            Ok::<_, store::Error>(named.flatten().collect::<BTreeSet<Fingerprint>>())
        });
        let mut named = named.await?;
        named.extend(self.shown(purpose).map(|shown| shown.leaf().fingerprint()));
        let folder = self.reloader.folder().clone();
        let swept = tokio::task::spawn_blocking(move || folder.sweep(purpose, left_over, &named));
        let gone = swept.await.map_err(|_| Problem::Broken)??;
        if gone > 0 {
            info!(%purpose, gone, "certificates that nothing names were taken away with their keys");
        }
        Ok(())
    }

    /// The same for all, at the start.
    pub(super) async fn sweep_all(&self) {
        for purpose in self.reloader.folder().purposes().collect::<Vec<_>>() {
            if let Err(problem) = self.sweep(purpose).await {
                // The next certificate that is made tries again.
                debug!(%purpose, cause = error_chain(&problem), "the folder of identities can't be swept");
            }
        }
    }

    pub(super) async fn settle(&self, row: &Row) -> Result<bool, Problem> {
        let Some(keep) = row.rotation.shows() else {
            return Ok(false);
        };
        if row.rotation.phase == Phase::Retired {
            self.faults.pass("rotation.retired").await;
        }
        let (folder, purpose) = (self.reloader.folder().clone(), row.name.purpose);
        let goes = self.unneeded(row).await?;
        let settled = tokio::task::spawn_blocking(move || {
            folder.settle(purpose, &keep)?;
            if let Some(goes) = goes {
                folder.remove(purpose, &goes)?;
            }
            Ok::<_, crate::trust::Error>(())
        });
        settled.await.map_err(|_| Problem::Broken)??;
        self.faults.pass("rotation.settling").await;
        let changed = self
            .change(row, |row| {
                (row.rotation.settled, row.problem) = (true, None);
            })
            .await?;
        self.faults.pass("rotation.settled").await;
        Ok(changed)
    }
}

impl Driver {
    /// The certificate that goes with a rotation, unless another node that has the same one, in the same folder perhaps,
    /// has not left it: that one takes it away.
    async fn unneeded(&self, row: &Row) -> Result<Option<Fingerprint>, Problem> {
        let Some(goes) = row.rotation.leaves() else {
            return Ok(None);
        };
        let node = row.name.node.clone();
        let is_needed = self.store.read(move |tx: &mut dyn Transaction| {
            let others = rotations::all(tx)?.into_iter();
            let mut others = others.filter(|other| other.name.node != node);
            Ok::<_, store::Error>(others.any(|other| needs(&other.rotation, goes)))
        });
        Ok((!is_needed.await?).then_some(goes))
    }
}

/// Whether a rotation may still come to show a certificate.
fn needs(rotation: &Rotation, certificate: Fingerprint) -> bool {
    let has_left = rotation.settled && rotation.leaves() == Some(certificate);
    let mut named = [rotation.old, rotation.new].into_iter().flatten();
    !has_left && named.any(|named| named == certificate)
}

/// Makes the new certificate, or takes it from the files, and keeps it in the folder. Blocks.
fn write_new(
    folder: &IdentityFolder,
    purpose: Purpose,
    node: &str,
    before: &Identity,
    recipe: &Recipe,
    now: Timestamp,
) -> Result<Begun, Problem> {
    let (chain, key) = match &recipe.files {
        Some((certificate, key)) => {
            let others = recipe.issuers.iter().map(Path::new);
            let files = Files {
                certificates: std::iter::once(Path::new(certificate))
                    .chain(others)
                    .collect(),
                key: Path::new(key),
                names: &recipe.names,
                may_lack_issuers: recipe.may_lack_issuers,
            };
            files.read(folder, purpose, now)?
        }
        None => {
            let made = make::self_signed(&request(before, recipe, now)?)?;
            (made.certificate_pem.into_bytes(), made.key_pem)
        }
    };
    let identity = Identity::from_pem(&chain, &key)?;
    check(folder, purpose, &identity, now)?;
    if identity.leaf().fingerprint() == before.leaf().fingerprint() {
        return Err(Problem::Same);
    }
    // The configured files may be written over by hand before this one is shown.
    folder
        .keep_found(purpose, &before.leaf().fingerprint())
        .map_err(|error| match error {
            crate::trust::Error::NoSuchIdentity { .. } => Problem::InMemoryAlone,
            error => error.into(),
        })?;
    Ok(folder.begin(purpose, node, &chain, &key)?)
}

/// Whether it could be shown for that purpose now.
pub(super) fn check(
    folder: &IdentityFolder,
    purpose: Purpose,
    identity: &Identity,
    now: Timestamp,
) -> Result<(), crate::trust::Error> {
    match purpose {
        Purpose::Federation if folder.files(Purpose::FederationClient).is_none() => {
            identity.check(now)
        }
        Purpose::Federation | Purpose::Phone => identity.check_server(now),
        Purpose::FederationClient => identity.check_client(now),
    }
}

fn request(before: &Identity, recipe: &Recipe, now: Timestamp) -> Result<CertRequest, Problem> {
    let leaf = before.leaf();
    let names = if recipe.names.is_empty() {
        leaf.names()
            .iter()
            .map(CertificateName::to_string)
            .collect()
    } else {
        recipe.names.clone()
    };
    let kind = match (recipe.key.as_deref(), KeyKind::of(leaf)) {
        (None, as_before) => as_before.ok_or(Problem::Kind)?,
        // A size that peers have been given before is kept.
        (Some("rsa"), Some(as_before)) if as_before.is_rsa() => as_before,
        (Some("rsa"), _) => KeyKind::Rsa2048,
        (Some(_), _) => KeyKind::P256,
    };
    let valid = leaf.not_after().since(leaf.not_before()).as_secs() / 86_400;
    let as_before = u32::try_from(valid)
        .ok()
        .filter(|days| (1..=3_650).contains(days));
    let days = recipe.days.or(as_before).unwrap_or(DAYS);
    Ok(CertRequest::new("", names, kind, now, days).like(leaf))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn another_node_needs_what_its_rotation_names_until_it_has_left_it() {
        let (old, new) = ([1; 32], [2; 32]);
        let mut theirs = Rotation::requested(false, None);
        theirs.made(old, new, 7);
        for phase in [Phase::Announced, Phase::Active, Phase::RollingBack] {
            theirs.phase = phase;
            assert!(needs(&theirs, old) && needs(&theirs, new), "{phase}");
            assert!(!needs(&theirs, [3; 32]), "{phase}");
        }
        theirs.settled = true;
        assert!(needs(&theirs, old) && !needs(&theirs, new));
        theirs.phase = Phase::Retired;
        assert!(!needs(&theirs, old) && needs(&theirs, new));
    }

    #[test]
    fn what_is_not_said_is_as_in_the_certificate_from_before() {
        let now = Clock::system().now();
        let identity = |kind| {
            let names = vec!["emcc.example.org".to_owned(), "192.0.2.1".to_owned()];
            let asked = CertRequest::new("berlin", names, kind, now, 99);
            let made = make::self_signed(&asked).unwrap();
            Identity::from_pem(made.certificate_pem.as_bytes(), &made.key_pem).unwrap()
        };
        let recipe = |key: Option<&str>| Recipe {
            key: key.map(str::to_owned),
            ..Recipe::default()
        };
        for (before, said, after) in [
            (KeyKind::P384, None, KeyKind::P384),
            (KeyKind::Rsa3072, None, KeyKind::Rsa3072),
            (KeyKind::Rsa3072, Some("rsa"), KeyKind::Rsa3072),
            (KeyKind::Rsa3072, Some("p256"), KeyKind::P256),
            (KeyKind::P256, Some("rsa"), KeyKind::Rsa2048),
        ] {
            let before = identity(before);
            let asked = request(&before, &recipe(said), now).unwrap();
            assert_eq!(
                (asked.key, &asked.names[..]),
                (
                    after,
                    &["emcc.example.org".to_owned(), "192.0.2.1".to_owned()][..]
                )
            );
            assert_eq!(
                asked.not_after,
                now.plus(std::time::Duration::from_secs(99 * 86_400))
            );
            assert!(asked.subject_der.is_some());
        }
    }
}
