//! A program that knows of us what an integrator knows: an address, certificates, metadata keys and reflection. It is
//! `tests/tools/federation_client.py`.

use std::path::Path;

use emccd::lab::Cluster;
use serde_json::Value;

use super::python;

/// One call after the other by the client program, as some cluster or as nobody.
pub(crate) struct Client {
    arguments: Vec<String>,
}

impl Client {
    /// For the first node of `server`; it believes that cluster's authority and shows no certificate yet.
    pub(crate) fn of(server: &Cluster) -> Self {
        Self::at(
            &server.member().unwrap().addresses.federation,
            &server.authority.file,
        )
    }

    /// For whatever answers at `target` and is believed by the certificate in `root`.
    pub(crate) fn at(target: &str, root: &Path) -> Self {
        let client = Self {
            arguments: Vec::new(),
        };
        client.with("--target", target).with_file("--root", root)
    }

    pub(crate) fn with(mut self, option: &str, value: &str) -> Self {
        self.arguments.extend([option.to_owned(), value.to_owned()]);
        self
    }

    pub(crate) fn with_file(self, option: &str, file: &Path) -> Self {
        self.with(option, file.to_str().unwrap())
    }

    pub(crate) fn showing(self, certificate: &Path, key: &Path) -> Self {
        self.with_file("--cert", certificate)
            .with_file("--key", key)
    }

    pub(crate) fn showing_nothing(mut self) -> Self {
        self.arguments.push("--no-cert".to_owned());
        self
    }

    /// The identity of a cluster's node, and what that cluster says of itself in every call.
    pub(crate) fn being(self, cluster: &Cluster) -> Self {
        let node = cluster.member().unwrap();
        self.showing(&node.federation_certificate, &node.federation_key)
            .with("--cluster-id", cluster.id.as_str())
    }

    /// The one object that it prints; the exit code has to agree with it.
    pub(crate) async fn call(&self, call: &[&str]) -> Value {
        let run = tokio::process::Command::new(python())
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/tools/federation_client.py"
            ))
            .args(["--timeout", "30"])
            .args(&self.arguments)
            .args(call)
            .output();
        let output = run.await.unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{call:?}: {}", String::from_utf8_lossy(&output.stderr)));
        assert_eq!(
            output.status.code(),
            Some(if answer["ok"] == true { 0 } else { 1 }),
            "{answer}"
        );
        answer
    }
}
