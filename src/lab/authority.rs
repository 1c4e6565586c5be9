//! A throw-away certificate authority per cluster, and the certificates of its nodes.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::{
    clock::Clock,
    domain::ids::ClusterId,
    trust::make::{self, Authority, CertRequest, KeyKind, Made},
};

/// For so long that no alarm is due.
const VALIDITY_DAYS: u32 = 180;

/// The authority of one cluster.
pub struct ClusterAuthority {
    /// Its certificate, for programs that want to verify this cluster's nodes.
    pub file: PathBuf,
    authority: Authority,
    cluster: ClusterId,
}

impl std::fmt::Debug for ClusterAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterAuthority")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl ClusterAuthority {
    /// Makes one and writes its certificate into `folder`.
    ///
    /// # Errors
    /// When it can't be made or written.
    pub fn create(cluster: &ClusterId, folder: &Path) -> Result<Self> {
        let now = Clock::system().now();
        let request = CertRequest::new(
            format!("{cluster} lab authority"),
            Vec::new(),
            KeyKind::P256,
            now,
            VALIDITY_DAYS,
        );
        let authority = make::ca(&request)?;
        let file = folder.join("ca.pem");
        make::write_public(&file, &authority.made().certificate_pem)?;
        Ok(Self {
            file,
            authority,
            cluster: cluster.clone(),
        })
    }

    /// What a node of this cluster asks for: its name and the loopback addresses, both directions.
    #[must_use]
    pub fn request(&self, node: &str) -> CertRequest {
        let names = [
            format!("{node}.{}.test", self.cluster),
            "localhost".to_owned(),
            "127.0.0.1".to_owned(),
        ];
        let subject = format!("{node}.{}.test", self.cluster);
        CertRequest::new(
            subject,
            names.into(),
            KeyKind::P256,
            Clock::system().now(),
            VALIDITY_DAYS,
        )
    }

    /// Signs.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn sign(&self, request: &CertRequest) -> Result<Made> {
        Ok(make::signed_by(request, &self.authority)?)
    }
}

/// Writes a certificate and its key in place of what is there, the key so that only its owner can read it.
///
/// # Errors
/// When they can't be written.
pub fn write(made: &Made, certificate: &Path, key: &Path) -> Result<()> {
    for old in [certificate, key] {
        match std::fs::remove_file(old) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    make::write_private(key, &made.key_pem)?;
    make::write_public(certificate, &made.certificate_pem)?;
    Ok(())
}
