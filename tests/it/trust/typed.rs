//! What an operator types at a node of a lab, typed: the binary itself on the node's socket.

use std::process::Command;

use super::*;

/// What a command came to.
#[derive(Debug)]
pub(super) struct Typed {
    pub(super) code: Option<i32>,
    pub(super) out: String,
    pub(super) err: String,
}

/// Types a line at the first node of `at`, in its folder.
pub(super) async fn type_at(at: &Cluster, line: &str) -> Typed {
    let node = at.member().unwrap();
    let mut command = Command::new(support::binary());
    command
        .args(line.split(' '))
        .current_dir(&node.folder)
        .env("EMCCD_SOCKET", &node.addresses.admin)
        .env_remove("EMCCD_CONFIG");
    // The node runs in this process: what waits for the command must not stand in its way.
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Typed {
        code: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// The same for a line that works.
pub(super) async fn works_at(at: &Cluster, line: &str) -> String {
    let typed = type_at(at, line).await;
    assert_eq!(typed.code, Some(0), "{line}: {typed:?}");
    typed.out
}

/// The command of a hint that begins with `begin`, as printed, and with what its words in capitals stand for.
pub(super) fn printed(hint: &str, begin: &str, filled: &[(&str, &str)]) -> String {
    let (_, rest) = hint
        .split_once(&format!("emccd {begin}"))
        .unwrap_or_else(|| panic!("no `emccd {begin}` in: {hint}"));
    let end = rest
        .find(['(', ',', ';', '`', '\n', ')'])
        .unwrap_or(rest.len());
    let mut line = format!("{begin}{}", &rest[..end]).trim().to_owned();
    for (word, value) in filled {
        line = line.replace(word, value);
    }
    line
}
