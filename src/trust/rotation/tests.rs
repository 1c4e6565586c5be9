use rustls::SignatureScheme;

use super::*;
use crate::{
    clock::Clock,
    domain::{announcement::Acceptance, purpose::Purpose, rotation::Outcome},
    store::{
        Store,
        peers::{self, Peer},
    },
    trust::make::{self, CertRequest, KeyKind},
};

fn id(text: &str) -> ClusterId {
    ClusterId::new(text).unwrap()
}

fn name(purpose: Purpose) -> Name {
    Name {
        node: "n1".to_owned(),
        purpose,
    }
}

/// When the certificate from before ends.
const ENDS: Timestamp = Timestamp::from_millis(5_000);

fn ana() -> Doer {
    Doer {
        actor: "ana (uid 7)".to_owned(),
        at: Timestamp::from_millis(1_000),
    }
}

fn peer(text: &str) -> Peer {
    Peer {
        cluster_id: id(text),
        enabled: true,
        allow_emcc: true,
        addresses: vec!["192.0.2.1:8444".to_owned()],
        node_names: Vec::new(),
        user_patterns: Vec::new(),
        dn_patterns: Vec::new(),
        ignore_eku: false,
        accept_announcements: Acceptance::Auto,
        description: String::new(),
    }
}

fn store() -> Store {
    Store::open(&store::Config {
        url: "sqlite::memory:".to_owned(),
        node: "n1".to_owned(),
    })
    .unwrap()
}

fn shut(outcome: Result<Row, Error>) -> String {
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::Shut { .. }), "{error}");
    error.to_string()
}

#[tokio::test]
async fn what_is_given_up_is_off_the_record_and_in_the_audit_unless_it_has_gone_on() {
    let store = store();
    let done = store.write(|tx: &mut dyn Transaction| {
        let (name, ana) = (name(Purpose::Federation), ana());
        announce(tx, &name, &Recipe::default(), false, &ana)?;
        let row = made(tx, &name, ([1; 32], ENDS), [2; 32], &ana)?;
        activate(tx, &name, &Named::default(), &ana)?;
        assert!(!give_up(tx, &row, [3; 32], &ana)?, "it has gone on since");
        let row = find(tx, &name)?;
        assert!(give_up(tx, &row, [3; 32], &ana)?);
        assert!(rotations::get(tx, &name)?.is_none());
        let entries = audit::list(tx, 1)?;
        let last = entries.last().unwrap();
        assert_eq!(last.action, "cert.roll-back");
        for part in ["given up (active)", &fingerprint_text(&[3; 32])] {
            assert!(last.outcome.contains(part), "{last:?}");
        }
        Ok::<_, Error>(())
    });
    done.await.unwrap();
}

#[tokio::test]
async fn a_gate_sees_the_peers_of_its_own_transaction_and_each_step_is_in_the_audit() {
    let store = store();
    let done = store.write(|tx: &mut dyn Transaction| {
        let (name, ana) = (name(Purpose::Federation), ana());
        for text in ["lima", "tokyo"] {
            peers::upsert(tx, &peer(text))?;
        }
        announce(tx, &name, &Recipe::default(), false, &ana)?;
        assert!(shut(announce(tx, &name, &Recipe::default(), false, &ana)).contains("requested"));
        let row = made(tx, &name, ([1; 32], ENDS), [2; 32], &ana)?;
        assert!(matches!(
            made(tx, &name, ([1; 32], ENDS), [3; 32], &ana),
            Err(Error::Missing(_))
        ));
        let refused = shut(activate(tx, &name, &Named::default(), &ana));
        assert!(
            refused.contains("lima") && refused.contains("tokyo"),
            "{refused}"
        );
        let sequence = row.rotation.sequence;
        progress(tx, &row, &id("lima"), |told| {
            told.progress.answered(sequence, Outcome::Loaded, "");
        })?;
        // An answer to what is out of date is none.
        let mut before = row.clone();
        before.rotation.sequence -= 1;
        assert!(!progress(tx, &before, &id("tokyo"), |told| told
            .progress
            .word =
            None)?);
        let refused = shut(activate(tx, &name, &Named::default(), &ana));
        assert!(
            !refused.contains("lima") && refused.contains("tokyo"),
            "{refused}"
        );
        let named = Named {
            overridden: BTreeSet::from([id("tokyo")]),
            ..Named::default()
        };
        let row = activate(tx, &name, &named, &ana)?;
        assert!(change(
            tx,
            &row,
            |row, _| row.rotation.shown = Some([2; 32]),
            false,
            ana.at
        )?);
        assert!(change(
            tx,
            &row,
            |row, _| row.rotation.in_use = Some(Vec::new()),
            false,
            ana.at
        )?);
        let refused = shut(retire(tx, &name, &ana));
        assert!(refused.contains("tokyo was not waited for"), "{refused}");
        // One that is gone, or new, counts at once.
        let mut gone = peer("tokyo");
        gone.enabled = false;
        peers::upsert(tx, &gone)?;
        peers::upsert(tx, &peer("oslo"))?;
        assert!(shut(retire(tx, &name, &ana)).contains("oslo"));
        progress(tx, &row, &id("oslo"), |told| {
            told.progress.answered(sequence, Outcome::Loaded, "");
        })?;
        let retired = retire(tx, &name, &ana)?;
        assert!(retired.rotation.sequence > sequence);
        assert!(matches!(
            roll_back(tx, &name, &ana),
            Err(Error::Shut { .. })
        ));
        let entries = tx.query("SELECT action, outcome FROM audit ORDER BY seq", &[])?;
        let words: Result<Vec<_>, store::Error> = entries
            .into_iter()
            .map(|mut row| Ok(format!("{} {}", row.text()?, row.text()?)))
            .collect();
        let words = words?;
        let begins = [
            "cert.announce",
            "cert.announce",
            "cert.activate",
            "cert.retire",
        ];
        assert_eq!(words.len(), begins.len(), "{words:?}");
        for (word, begin) in words.iter().zip(begins) {
            assert!(word.starts_with(begin), "{word}");
        }
        assert!(words[2].ends_with("not waiting for tokyo"), "{}", words[2]);
        Ok::<_, Error>(())
    });
    done.await.unwrap();
}

#[tokio::test]
async fn what_was_never_announced_is_taken_back_without_a_trace_and_phones_ask_no_peer() {
    let store = store();
    let done = store.write(|tx: &mut dyn Transaction| {
        let (name, ana) = (name(Purpose::Phone), ana());
        peers::upsert(tx, &peer("tokyo"))?;
        assert!(matches!(roll_back(tx, &name, &ana), Err(Error::Missing(_))));
        announce(tx, &name, &Recipe::default(), true, &ana)?;
        assert_eq!(roll_back(tx, &name, &ana)?, None);
        assert_eq!(rotations::all(tx)?, []);
        announce(tx, &name, &Recipe::default(), false, &ana)?;
        made(tx, &name, ([1; 32], ENDS), [2; 32], &ana)?;
        // A word about a peer is a slip of the hand where none is asked.
        let named = Named {
            overridden: BTreeSet::from([id("tokyo")]),
            ..Named::default()
        };
        assert!(shut(activate(tx, &name, &named, &ana)).contains("tokyo"));
        let row = activate(tx, &name, &Named::default(), &ana)?;
        assert_eq!(row.rotation.phase, Phase::Active);
        // Nobody would accept what has expired.
        let late = Doer {
            at: Timestamp::from_millis(5_001),
            ..ana.clone()
        };
        let refused = roll_back(tx, &name, &late).unwrap_err().to_string();
        assert!(refused.contains("has expired"), "{refused}");
        let back = roll_back(tx, &name, &ana)?.unwrap();
        assert_eq!(back.rotation.shows(), Some([1; 32]));
        // What the node decided before does not undo what an operator has done since.
        assert!(!change(
            tx,
            &row,
            |row, _| row.rotation.activate(),
            false,
            ana.at
        )?);
        Ok::<_, Error>(())
    });
    done.await.unwrap();
}

/// Brings a rotation of a federation identity to where the new one is shown and nothing rests on the old one.
fn active(tx: &mut dyn Transaction, without: &[&str]) -> Result<Row, Error> {
    let (name, ana) = (name(Purpose::Federation), ana());
    announce(tx, &name, &Recipe::default(), false, &ana)?;
    made(tx, &name, ([1; 32], ENDS), [2; 32], &ana)?;
    let named = Named {
        overridden: without.iter().map(|text| id(text)).collect(),
        ..Named::default()
    };
    let row = activate(tx, &name, &named, &ana)?;
    change(
        tx,
        &row,
        |row, _| {
            (row.rotation.shown, row.rotation.in_use) = (row.rotation.new, Some(Vec::new()));
        },
        false,
        ana.at,
    )?;
    Ok(rotations::get(tx, &name)?.unwrap())
}

#[tokio::test]
async fn at_its_end_the_old_one_goes_without_the_peers_that_are_named_and_no_others() {
    let store = store();
    let done = store.write(|tx: &mut dyn Transaction| {
        let (name, ana) = (name(Purpose::Federation), ana());
        peers::upsert(tx, &peer("tokyo"))?;
        let row = active(tx, &["tokyo"])?;
        assert!(shut(retire(tx, &name, &ana)).contains("tokyo"));
        peers::upsert(tx, &peer("oslo"))?;
        let tokyo = BTreeSet::from([id("tokyo")]);
        assert!(shut(retire_without(tx, &name, &tokyo, &ana)).contains("oslo"));
        // Connections end by themselves, and need no key for that.
        change(
            tx,
            &row,
            |row, _| row.rotation.in_use = Some(vec!["a link".to_owned()]),
            false,
            ana.at,
        )?;
        let both = BTreeSet::from([id("tokyo"), id("oslo")]);
        let row = retire_without(tx, &name, &both, &ana)?;
        assert_eq!(row.rotation.phase, Phase::Retired);
        let mut last = tx.query("SELECT outcome FROM audit ORDER BY seq DESC LIMIT 1", &[])?;
        let last = last.remove(0).text()?;
        assert!(last.ends_with("not waiting for oslo, tokyo"), "{last}");
        Ok::<_, Error>(())
    });
    done.await.unwrap();
}

#[tokio::test]
async fn who_became_a_peer_since_has_to_have_the_old_one_before_it_is_shown_again() {
    let store = store();
    let done = store.write(|tx: &mut dyn Transaction| {
        let (name, ana) = (name(Purpose::Federation), ana());
        peers::upsert(tx, &peer("tokyo"))?;
        let row = active(tx, &["tokyo"])?;
        peers::upsert(tx, &peer("oslo"))?;
        let refused = roll_back(tx, &name, &ana).unwrap_err().to_string();
        assert!(
            refused.contains("oslo") && !refused.contains("tokyo"),
            "{refused}"
        );
        let sequence = row.rotation.sequence;
        progress(tx, &row, &id("oslo"), |told| {
            assert!(told.progress.newcomer);
            told.progress.answered(sequence, Outcome::Loaded, "");
        })?;
        assert!(roll_back(tx, &name, &ana)?.is_some());
        Ok::<_, Error>(())
    });
    done.await.unwrap();
}

#[tokio::test]
async fn what_ends_while_it_is_shown_gives_way_to_the_one_that_lies_ready() {
    let store = store();
    let done = store.write(|tx: &mut dyn Transaction| {
        let (name, ana) = (name(Purpose::Federation), ana());
        let late = Doer::node(Timestamp::from_millis(5_001));
        peers::upsert(tx, &peer("tokyo"))?;
        announce(tx, &name, &Recipe::default(), false, &ana)?;
        made(tx, &name, ([1; 32], ENDS), [2; 32], &ana)?;
        assert_eq!(ended(tx, &name, &ana)?, None);
        let row = ended(tx, &name, &late)?.unwrap();
        assert_eq!(row.rotation.shows(), Some([2; 32]));
        let told = rotations::told(tx, &name)?;
        assert_eq!(
            told[0].progress.word,
            Some(crate::domain::rotation::Word::Overridden)
        );
        assert_eq!(ended(tx, &name, &late)?, None);
        // On the way back, too, as long as there is a new one.
        let back = roll_back(tx, &name, &ana)?.unwrap();
        assert_eq!(back.rotation.shows(), Some([1; 32]));
        let row = ended(tx, &name, &late)?.unwrap();
        assert_eq!(row.rotation.shows(), Some([2; 32]));
        Ok::<_, Error>(())
    });
    done.await.unwrap();
}

#[test]
fn a_proof_is_over_everything_that_it_is_about() {
    let (berlin, tokyo) = (id("berlin"), id("tokyo"));
    let claim = Claim {
        from: &berlin,
        to: &tokyo,
        identity: "n1/federation",
        sequence: 7,
        fingerprint: &[1; 32],
        parent: Some(&[2; 32]),
    };
    let mut expected = b"emcc trust-announce v1".to_vec();
    expected.extend(b"\0\0\0\x06berlin\0\0\0\x05tokyo\0\0\0\x0dn1/federation");
    expected.extend(b"\0\0\0\x08\0\0\0\0\0\0\0\x07\0\0\0\x20");
    expected.extend([1; 32]);
    expected.extend(b"\0\0\0\x20");
    expected.extend([2; 32]);
    assert_eq!(claim.text(), expected);
    let others = [
        Claim {
            from: &tokyo,
            ..claim
        },
        Claim {
            to: &berlin,
            ..claim
        },
        Claim {
            identity: "n2/federation",
            ..claim
        },
        Claim {
            sequence: 8,
            ..claim
        },
        Claim {
            fingerprint: &[2; 32],
            ..claim
        },
        Claim {
            parent: None,
            ..claim
        },
    ];
    for other in others {
        assert_ne!(other.text(), expected);
    }
}

#[test]
fn every_kind_of_key_that_is_made_can_prove_itself() {
    use rustls::crypto::aws_lc_rs;
    let (berlin, tokyo) = (id("berlin"), id("tokyo"));
    for kind in [KeyKind::P256, KeyKind::Rsa2048] {
        let now = Clock::system().now();
        let request = CertRequest::new("berlin", vec!["localhost".to_owned()], kind, now, 1);
        let made = make::self_signed(&request).unwrap();
        let identity = Identity::from_pem(made.certificate_pem.as_bytes(), &made.key_pem).unwrap();
        let fingerprint = identity.leaf().fingerprint();
        let claim = Claim {
            from: &berlin,
            to: &tokyo,
            identity: "n1/federation",
            sequence: 7,
            fingerprint: &fingerprint,
            parent: None,
        };
        let (scheme, signature) = claim.sign(&identity).unwrap();
        let scheme = SignatureScheme::from(u16::try_from(scheme).unwrap());
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        let (_, known) = algorithms
            .mapping
            .iter()
            .find(|(known, _)| *known == scheme)
            .unwrap();
        let leaf = webpki::EndEntityCert::try_from(identity.leaf().der()).unwrap();
        let holds = |text: &[u8]| {
            known
                .iter()
                .any(|algorithm| leaf.verify_signature(*algorithm, text, &signature).is_ok())
        };
        assert!(holds(&claim.text()));
        assert!(!holds(
            &Claim {
                sequence: 8,
                ..claim
            }
            .text()
        ));
    }
}

#[tokio::test]
async fn what_a_peer_has_said_goes_with_it() {
    let store = store();
    let done = store.write(|tx: &mut dyn Transaction| {
        let (name, ana) = (name(Purpose::Federation), ana());
        peers::upsert(tx, &peer("tokyo"))?;
        peers::upsert(tx, &peer("lima"))?;
        let row = active(tx, &["tokyo", "lima"])?;
        for text in ["lima", "tokyo"] {
            progress(tx, &row, &id(text), |told| {
                let sequence = row.rotation.sequence;
                told.progress.answered(sequence, Outcome::Loaded, "");
                (told.progress.seen_out, told.progress.seen_in) = (true, true);
            })?;
        }
        assert!(peers::remove(tx, &id("tokyo"))?);
        peers::upsert(tx, &peer("tokyo"))?;
        let told = rotations::told(tx, &name)?;
        let of = |text: &str| {
            let found = told.iter().find(|told| told.cluster == id(text)).unwrap();
            (found.progress.outcome, found.progress.newcomer)
        };
        assert_eq!(of("tokyo"), (Outcome::Silent, true));
        assert_eq!(of("lima"), (Outcome::Loaded, false));
        assert!(shut(retire(tx, &name, &ana)).contains("tokyo"));
        Ok::<_, Error>(())
    });
    done.await.unwrap();
}
