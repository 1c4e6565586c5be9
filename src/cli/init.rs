//! `init`: the first files of a node, and the command to type next.

use serde_json::json;

use crate::{
    cli::{
        args,
        cluster::shown,
        failure::{Failure, Outcome},
        output::{Report, record},
    },
    clock::Clock,
    config::init::{DEFAULT_PORT_BASE, InitOptions, create},
};

/// Makes the files.
///
/// # Errors
/// What is in the way; then nothing was made.
pub fn run(args: args::Init) -> Outcome {
    let options = InitOptions {
        cluster_id: args.cluster_id,
        folder: args.dir,
        port_base: args.port_base.unwrap_or(DEFAULT_PORT_BASE),
        hosts: args.host,
        settings: Vec::new(),
        now: Clock::system().now(),
    };
    let created = create(&options).map_err(|cause| {
        Failure::from_error(
            format!("cannot make a node in {}", shown(&options.folder)),
            &cause,
            "nothing was made; correct it and try again",
        )
    })?;
    let fields = record(&[
        ("configuration", shown(&created.config)),
        ("certificate for peers", shown(&created.federation_cert)),
        ("its SHA-256", created.fingerprint.clone()),
        ("certificate for phones", shown(&created.phone_cert)),
    ]);
    let text = format!(
        "made the first node of the cluster {}\n\n{fields}\n\nnext: {}",
        options.cluster_id, created.next
    );
    let answer = json!({
        "cluster_id": options.cluster_id,
        "folder": created.folder,
        "config": created.config,
        "federation_certificate": created.federation_cert,
        "phone_certificate": created.phone_cert,
        "fingerprint": created.fingerprint,
        "next": created.next,
    });
    Ok(Report::new(text, &answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let args = || args::Init {
            cluster_id: "berlin".parse().unwrap(),
            dir: dir.path().join("b"),
            port_base: None,
            host: vec!["127.0.0.1".to_owned()],
        };
        let report = run(args()).unwrap();
        assert!(report.text.contains("next: emccd run"), "{}", report.text);
        assert_eq!(report.json["cluster_id"], "berlin");
        let text = run(args()).unwrap_err().to_string();
        assert!(
            text.contains("there already") && text.contains("next: "),
            "{text}"
        );
    }
}
