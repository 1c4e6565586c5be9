//! What messages tell people to type is typed here.

use super::*;
use crate::{
    domain::rejection::Rejection,
    peer,
    trust::{
        certificate::fingerprint_text,
        mend::{mend, mend_called, mend_link, mend_ours},
    },
};

fn tokyo() -> ClusterId {
    "tokyo".parse().unwrap()
}

/// Every text of ours that mends a peer that has a record here.
fn about_a_known_peer() -> Vec<String> {
    let known = tokyo();
    let mut texts: Vec<String> = Rejection::ALL
        .into_iter()
        .flat_map(|r| {
            let us = "berlin".parse().unwrap();
            [
                mend(r, Some(&known)),
                mend_link(r, &known),
                mend_ours(r, &known, &us),
            ]
        })
        .collect();
    let errors = [
        peer::Error::NoAddress {
            cluster: known.clone(),
        },
        peer::Error::Disabled {
            cluster: known.clone(),
        },
        peer::Error::WrongCluster {
            address: "t.example:8444".to_owned(),
            cluster: known.clone(),
            found: "paris".parse().unwrap(),
        },
    ];
    texts.extend(errors.iter().map(ToString::to_string));
    texts.push(crate::home::Error::CallerNotAllowed(known.clone()).to_string());
    texts.push(crate::home::Error::CallerDistrusted(known).to_string());
    texts
}

/// Texts about what has no record, or about no peer at all.
fn about_others() -> Vec<String> {
    let mut texts: Vec<String> = Rejection::ALL
        .into_iter()
        .flat_map(|r| [mend(r, None), mend_called(r)])
        .collect();
    texts.push(peer::Error::NoIdentity.to_string());
    texts.push(crate::home::Error::CallerUnknown(tokyo()).to_string());
    texts.push(crate::trust::Error::NoIdentity.to_string());
    texts
}

/// The command lines in a text, without the program's name. One ends at a word of prose, at a mark that ends a
/// sentence or a quotation, and at a parenthesis.
fn commands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for rest in text.split("emccd ").skip(1) {
        let mut line: Vec<&str> = Vec::new();
        for (at, word) in rest.split(' ').enumerate() {
            let bare = word.trim_end_matches(['`', ',', ';', ':', '.', ')', '\'']);
            let value = line.last().is_some_and(|last| last.starts_with("--"))
                || bare == "tokyo"
                || Rejection::from_word(bare).is_some()
                || bare.starts_with("--")
                || bare.chars().all(|c| c.is_ascii_uppercase() || c == ':');
            let has_verbs = matches!(*line, ["trust", "crl"] | ["cert", "rotate"]);
            if bare.is_empty() || word.starts_with('(') || (at >= 2 && !value && !has_verbs) {
                break;
            }
            line.push(bare);
            if bare.len() < word.len() {
                break;
            }
        }
        found.push(line.join(" "));
    }
    found
}

/// A line with words that can be, in the place of those that stand for something.
fn filled(line: &str, fingerprint: &str) -> String {
    line.split(' ')
        .map(|word| match word {
            "FILE" | "FILE..." => "@tokyo.pem",
            "DIR" => "folder",
            "9F:86:…:0A" => fingerprint,
            "HOST:PORT" => "t.example:8444",
            "HEX" => fingerprint,
            "ID" | "CLUSTER" => "tokyo",
            "NAME" => "n1.tokyo.example",
            word => word,
        })
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn commands_are_found_in_what_is_said() {
    let text = "look: emccd trust list, then `emccd cluster set tokyo --node-name NAME` there (emccd cert show there); \
                emccd trust remove ID --fingerprint HEX. Or emccd cluster set tokyo --ignore-eku true (emccd trust crl list \
                there): emccd trust crl add tokyo FILE";
    let expected = [
        "trust list",
        "cluster set tokyo --node-name NAME",
        "cert show",
        "trust remove ID --fingerprint HEX",
        "cluster set tokyo --ignore-eku true",
        "trust crl list",
        "trust crl add tokyo FILE",
    ];
    assert_eq!(commands(text), expected);
}

#[test]
fn every_command_line_of_a_hint_can_be_typed() {
    let mut typed = 0;
    let fingerprint = "ab".repeat(32);
    for text in about_a_known_peer().into_iter().chain(about_others()) {
        for line in commands(&text) {
            let words = filled(&line, &fingerprint);
            let words = ["emccd"].into_iter().chain(words.split(' '));
            match CommandLine::try_parse_from(words) {
                Ok(_) => typed += 1,
                // A command that is only named; the test of names knows that it exists.
                Err(error)
                    if error.kind() == clap::error::ErrorKind::MissingRequiredArgument
                        && line.split(' ').count() == 2 => {}
                Err(error) => panic!("{text}\n{line}\n{error}"),
            }
        }
    }
    assert!(typed > 20, "only {typed} lines were found");
}

#[test]
fn every_command_that_leads_a_rotation_on_can_be_typed() {
    let mut typed = std::collections::BTreeSet::new();
    for text in crate::edge::admin::rotation_next::tests::every_text() {
        for rest in text.split("emccd ").skip(1) {
            let line = rest.split([';', ',', '.', '\n']).next().unwrap();
            let line = line.replace("--pin FILE", "--pin @tokyo.pem");
            let words = ["emccd"].into_iter().chain(line.split_whitespace());
            if let Err(error) = CommandLine::try_parse_from(words) {
                panic!("{text}\n{line}\n{error}");
            }
            typed.insert(line);
        }
    }
    assert!(typed.len() > 25, "{typed:?}");
}

/// The lines that begin with the program's name in the fences of a page, without it and without what a shell
/// takes off: comments, quotes, redirections. What stands in brackets is typed, too.
fn fenced(page: &str) -> Vec<String> {
    let fences = page.split("\n```").skip(1).step_by(2);
    let lines = fences.flat_map(str::lines);
    let commands = lines.filter_map(|line| line.trim().strip_prefix("emccd "));
    let typed = |line: &str| {
        let words = line.split_whitespace();
        let words =
            words.take_while(|word| !matches!(*word, "#" | "&" | "|") && !word.contains('>'));
        let bare = |word: &str| word.replace(['[', ']', '\''], "");
        words.map(bare).collect::<Vec<_>>().join(" ")
    };
    commands.map(typed).collect()
}

#[test]
fn every_command_line_of_a_page_can_be_typed() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let fingerprint = "ab".repeat(32);
    let mut typed = 0;
    for path in spoken(root) {
        if path.extension().is_none_or(|e| e != "md") {
            continue;
        }
        for line in fenced(&fs::read_to_string(&path).unwrap()) {
            let words = filled(&line, &fingerprint);
            let words = ["emccd"].into_iter().chain(words.split(' '));
            if let Err(error) = CommandLine::try_parse_from(words) {
                panic!("{}: emccd {line}\n{error}", path.display());
            }
            typed += 1;
        }
    }
    assert!(typed > 25, "only {typed} lines were found");
}

#[test]
fn a_shell_s_part_of_a_line_is_taken_off() {
    let page = "x\n```\nemccd apply FILE... # all\n  emccd run --config f 2>log &\nls\n```\nemccd prose\n\
                ```sh\nemccd cluster set tokyo --dn-pattern ''\nemccd session list [--all]\n```\n";
    let expected = [
        "apply FILE...",
        "run --config f",
        "cluster set tokyo --dn-pattern ",
        "session list --all",
    ];
    assert_eq!(fenced(page), expected);
}

#[tokio::test]
async fn what_mends_a_peer_works_on_a_node_that_has_it() {
    let node = Node::start().await;
    let made = certificate("tokyo");
    node.write("tokyo.pem", &made.certificate_pem);
    node.write("ca.pem", &authority("Corporate CA").certificate_pem);
    node.type_in("cluster add tokyo --address old.example:8444 --trust @tokyo.pem")
        .await;
    let mut texts = about_a_known_peer();
    // The node's own words as well.
    texts.push(node.refused("cluster add tokyo --address t:1").await);
    texts.push(node.refused("trust add tokyo --anchor @ca.pem").await);
    let fingerprint = fingerprint_text(&made.fingerprint());
    let mut typed = Vec::new();
    for text in texts {
        for line in commands(&text) {
            let noun = line.split(' ').next().unwrap();
            // `cert` is about this node's own certificates, and a list is of an authority that a test has to keep.
            if !["cluster", "trust"].contains(&noun) || line.starts_with("trust crl add ") {
                continue;
            }
            assert!(!line.starts_with("cluster add "), "{text}");
            let mut line = filled(&line, &fingerprint);
            if line.starts_with("trust remove ") {
                node.type_in("trust add tokyo --pin @tokyo.pem").await;
                line += " --yes --mode unlink";
            } else if line.contains(" --unrevoke ") {
                node.type_in("trust add tokyo --pin @tokyo.pem").await;
                let revoke =
                    format!("trust remove tokyo --fingerprint {fingerprint} --yes --mode unlink");
                node.type_in(&revoke).await;
            }
            node.type_in(&line).await;
            typed.push(line);
        }
    }
    for needed in [
        "cluster set tokyo --address t.example:8444",
        "cluster set tokyo --node-name n1.tokyo.example",
        "cluster set tokyo --ignore-eku true",
        "cluster set tokyo --enabled true",
        "cluster set tokyo --enabled true --allow-emcc true",
        "trust add tokyo --pin @tokyo.pem",
    ] {
        assert!(
            typed.iter().any(|line| line == needed),
            "{needed}: {typed:#?}"
        );
    }
    assert!(
        typed
            .iter()
            .any(|l| l.starts_with("trust remove tokyo --fingerprint "))
    );
    node.end().await;
}

#[test]
fn what_exists_and_what_does_not_is_changed_and_added_by_a_command() {
    for line in [
        "user set tokyo --enabled false",
        "user add tokyo",
        "device set tokyo --device-pool=",
        "device set tokyo --geolocation=",
        "device set tokyo --locale de_DE",
        "device add tokyo",
        "profile set tokyo --line=",
        "profile set tokyo --device-pool=",
        "profile add tokyo --user anna",
        "base list",
        "base add tokyo",
        "export",
    ] {
        let words = std::iter::once("emccd").chain(line.split(' '));
        CommandLine::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}
