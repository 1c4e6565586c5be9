//! The configuration and the files that it names.

use std::{fs, io::ErrorKind, path::Path};

use super::Finding;
use crate::{
    clock::Timestamp,
    config::{self, Config, IdentityFiles, Problem, Problems},
    trust::{certificate::Certificate, expiry::Stage},
};

/// The file can't be used at all: nothing else is known then.
pub(super) fn unreadable(file: &Path, problems: &Problems) -> Finding {
    let all: Vec<_> = problems.list.iter().map(ToString::to_string).collect();
    let opened = fs::File::open(file).err().map(|cause| cause.kind());
    Finding::error(
        "config",
        format!("{}: {}", file.display(), all.join("; ")),
        how_to_read(file, opened),
    )
}

/// What to do about a file that could not be opened for that reason, or was opened.
fn how_to_read(file: &Path, cause: Option<ErrorKind>) -> String {
    match cause {
        Some(ErrorKind::PermissionDenied) => {
            "run emccd doctor as root, or as the daemon's own user".to_owned()
        }
        Some(ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            "name another one: emccd doctor --config FILE; or make a node: emccd init --cluster-id ID"
                .to_owned()
        }
        _ => format!(
            "correct the file, and check it with: emccd config check --config {}",
            file.display()
        ),
    }
}

/// The files that a configuration names.
pub(super) fn check(config: &Config, now: Timestamp) -> Vec<Finding> {
    let problems = match config::check_files(config, now) {
        Ok(()) => Vec::new(),
        Err(problems) => problems.list,
    };
    let mut found: Vec<_> = problems.iter().map(|p| problem(config, p)).collect();
    let is_named = |found: &[Finding], id| found.iter().any(|f| f.id == id);
    for (id, files) in [
        ("federation-identity", Some(&config.identity)),
        (
            "federation-client-identity",
            config.client_identity.as_ref(),
        ),
        ("phone-identity", Some(&config.phone.identity)),
    ] {
        if let Some(files) = files.filter(|_| !is_named(&found, id)) {
            found.extend(validity(id, files, now));
        }
    }
    if !is_named(&found, "pepper") {
        found.push(Finding::ok(
            "pepper",
            "its file is there, and readable by its owner only",
        ));
    }
    found
}

fn problem(config: &Config, problem: &Problem) -> Finding {
    let id = match problem.key.rsplit_once('.') {
        Some(("identity", _)) => "federation-identity",
        Some(("identity.client", _)) => "federation-client-identity",
        Some(("phone", _)) => "phone-identity",
        Some(("credentials", _)) => "pepper",
        _ => "folders",
    };
    let hint = problem
        .suggestion
        .clone()
        .unwrap_or_else(|| mend(config, problem));
    let told = Problem {
        suggestion: None,
        ..problem.clone()
    };
    Finding::error(id, told.to_string(), hint)
}

/// What mends an identity.
fn mend(config: &Config, problem: &Problem) -> String {
    let (files, purpose) = match problem.key.split_once('.') {
        Some(("phone", _)) => (&config.phone.identity, " --purpose phone"),
        Some(("identity", of_client)) if of_client.starts_with("client.") => (
            config.client_identity.as_ref().unwrap_or(&config.identity),
            " --purpose federation-client",
        ),
        _ => (&config.identity, ""),
    };
    if problem.reason.contains("readable by others") || problem.reason.contains("mode 0") {
        let store = files.store.as_ref();
        let file = match problem.key.rsplit_once('.') {
            Some((_, "key-store-password-file")) => store.and_then(|s| s.password_file.as_ref()),
            Some((_, "key-password-file")) => store.and_then(|s| s.key_password_file.as_ref()),
            _ => None,
        };
        return format!("chmod 600 {}", file.unwrap_or(&files.key).display());
    }
    if files.store.is_some() {
        return format!(
            "emccd cert show {} tells what is in the key store; mend it or the keys beside {}, then: emccd cert reload",
            files.certificate.display(),
            problem.key
        );
    }
    format!(
        "emccd cert new{purpose} --common-name {} --name HOST --out NEW; put the two files where {} and {} are, then: \
         emccd cert reload",
        config.cluster_id,
        files.certificate.display(),
        files.key.display()
    )
}

/// How long the identity is valid, and what it sends along where that ends soon.
fn validity(id: &'static str, files: &IdentityFiles, now: Timestamp) -> Vec<Finding> {
    let Ok(identity) = files.identity() else {
        return Vec::new();
    };
    let left = |certificate: &Certificate| {
        format!(
            "{} is valid for another {} days, until {}",
            certificate.subject(),
            certificate.not_after().since(now).as_secs() / 86_400,
            certificate.not_after()
        )
    };
    let purpose = match id {
        "phone-identity" => " --purpose phone",
        "federation-client-identity" => " --purpose federation-client",
        _ => "",
    };
    let leaf = identity.leaf();
    let mut found = vec![match Stage::of(leaf.not_after(), now) {
        None => Finding::ok(id, left(leaf)),
        Some(_) => {
            let hint = format!(
                "emccd cert new --help tells how to make the next one; then have those trust it who must, and: \
                 emccd cert install{purpose} FILE --now"
            );
            Finding::warning(id, left(leaf), hint)
        }
    }];
    for issuer in identity.chain().iter().skip(1) {
        let hint = || {
            let file = files.certificate.display();
            let how = match files.store {
                None => format!("put it behind the certificate in {file}"),
                Some(_) => format!(
                    "bring the whole chain to the key in {file} (keytool -importcert, under the key's alias)"
                ),
            };
            format!("have the authority renew it, {how}, and: emccd cert reload")
        };
        found.extend(match Stage::of(issuer.not_after(), now) {
            None => None,
            Some(Stage::Within(_)) => Some(Finding::warning(id, left(issuer), hint())),
            Some(Stage::Expired) => {
                let text = format!(
                    "{}, which is sent along, expired at {}",
                    issuer.subject(),
                    issuer.not_after()
                );
                Some(Finding::error(id, text, hint()))
            }
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_read_a_file_is_not_told_to_make_one() {
        let hint = |cause| how_to_read(Path::new("/etc/emccd/emccd.toml"), cause);
        assert!(hint(Some(ErrorKind::PermissionDenied)).contains("as root"));
        assert!(hint(Some(ErrorKind::NotFound)).contains("emccd init"));
        assert!(hint(None).contains("config check"));
    }
}
