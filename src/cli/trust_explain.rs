//! `trust explain`: why something is trusted or not, step by step.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::{
    cli::{
        args::{Global, TrustExplain},
        client::{answer, connect},
        failure::{Failure, Outcome},
        output::{Report, clean},
        stores,
    },
    clock::Clock,
    domain::{address::HostPort, ids::ClusterId, rejection::Rejection},
    edge::admin::explain::part,
    trust::{
        certificate::Certificate,
        explain::{self, Mark},
        formats::{Contents, Keys},
    },
    wire::admin::{self as pb, explain_trust_request::What},
};

/// Runs it.
///
/// # Errors
/// What the daemon refuses, a file that can't be read, and a word that stands for nothing.
pub async fn run(global: &Global, args: TrustExplain) -> Outcome {
    let what = format!("cannot explain {}", args.what);
    let asked = match Target::read(&args.what, Path::exists) {
        Ok(target) => target,
        Err(why) => return Err(Failure::usage(what, why, WHAT_IT_TAKES)),
    };
    let asked = match asked {
        Target::Reason(_) if args.wanted.is_some() => {
            let why = "a reason is of no peer";
            return Err(Failure::usage(what, why, "leave --as out"));
        }
        Target::Reason(rejection) => return Ok(page(rejection)),
        Target::File(file) => return in_file(global, &what, &file, &args).await,
        Target::Peer(id) if args.wanted.is_some() => {
            let why = format!("{id} is a peer itself");
            return Err(Failure::usage(what, why, "leave --as out"));
        }
        Target::Peer(id) => What::ClusterId(id.to_string()),
        Target::Address(address) => What::Address(address.to_string()),
    };
    let parts = ask(global, &what, asked, args.wanted.as_ref()).await?;
    let accepted = parts.iter().all(|part| part.holds);
    Ok(report(accepted, parts, None))
}

/// What can be explained.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Reason(Rejection),
    File(PathBuf),
    Address(HostPort),
    Peer(ClusterId),
}

impl Target {
    /// What was meant, or in words what is wrong with it.
    fn read(text: &str, exists: impl Fn(&Path) -> bool) -> Result<Self, String> {
        if let Some(rejection) = Rejection::from_word(text) {
            return Ok(Self::Reason(rejection));
        }
        if text.contains("://") {
            return Err("it is a URL, and not a host and a port".to_owned());
        }
        let path = Path::new(text);
        let ending = path.extension().and_then(|ending| ending.to_str());
        let is_store = ending.is_some_and(|ending| STORES.contains(&ending));
        if text.contains('/') || is_store || exists(path) {
            return Ok(Self::File(path.to_owned()));
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        if let Some((host, port)) = text.rsplit_once(':') {
            return Err(match port.parse::<u16>() {
                Err(_) | Ok(0) => format!("{port:?} is no port, which is 1 to 65535"),
                Ok(_) => format!(
                    "{host:?} is no host name, and no IP address; of IPv6 it stands in brackets"
                ),
            });
        }
        ClusterId::new(text).map(Self::Peer).map_err(|_| {
            "it is no address, no file that exists, no cluster ID and no reason".to_owned()
        })
    }
}

/// Endings of files that hold certificates.
const STORES: [&str; 11] = [
    "pem",
    "crt",
    "cer",
    "der",
    "p7b",
    "p7c",
    "p12",
    "pfx",
    "jks",
    "keystore",
    "truststore",
];
const WHAT_IT_TAKES: &str = "give an address such as n1.tokyo.example:8444, a file of certificates, the ID of a peer as \
                             emccd cluster list shows it, or a reason such as unknown-issuer";

/// The page of a reason.
#[derive(Debug, Serialize)]
struct Page {
    reason: &'static str,
    meaning: &'static str,
    page: &'static str,
}

fn page(rejection: Rejection) -> Report {
    let page = Page {
        reason: rejection.as_str(),
        meaning: rejection.meaning(),
        page: refusal_page(rejection),
    };
    Report::new(page.page, &page)
}

/// What stands in `docs/refusals` about a reason.
const fn refusal_page(rejection: Rejection) -> &'static str {
    match rejection {
        Rejection::Ambiguous => include_str!("../../docs/refusals/ambiguous.md"),
        Rejection::Expired => include_str!("../../docs/refusals/expired.md"),
        Rejection::NoClientCertificate => {
            include_str!("../../docs/refusals/no-client-certificate.md")
        }
        Rejection::NotYetValid => include_str!("../../docs/refusals/not-yet-valid.md"),
        Rejection::Plaintext => include_str!("../../docs/refusals/plaintext.md"),
        Rejection::Revoked => include_str!("../../docs/refusals/revoked.md"),
        Rejection::TlsVersion => include_str!("../../docs/refusals/tls-version.md"),
        Rejection::UnknownIssuer => include_str!("../../docs/refusals/unknown-issuer.md"),
        Rejection::WrongCluster => include_str!("../../docs/refusals/wrong-cluster.md"),
        Rejection::WrongEku => include_str!("../../docs/refusals/wrong-eku.md"),
        Rejection::WrongName => include_str!("../../docs/refusals/wrong-name.md"),
    }
}

/// What a file holds to be judged: a chain, or one of several certificates by themselves.
struct Asked {
    /// What it is called, where there are several.
    name: Option<String>,
    chain: Vec<Certificate>,
}

/// A file of a leaf and its issuers is a chain; entries of a store that have nothing to do with one another are several.
fn to_judge(contents: &Contents) -> Vec<Asked> {
    let all = contents.certificates();
    if contents.entries.len() < 2 || explain::is_one_chain(&all) {
        let (name, chain) = (None, all);
        return vec![Asked { name, chain }];
    }
    let whole = contents
        .entries
        .iter()
        .filter(|entry| !entry.chain.is_empty());
    whole
        .map(|entry| Asked {
            name: Some(
                entry
                    .alias
                    .clone()
                    .unwrap_or_else(|| entry.subject().to_owned()),
            ),
            chain: entry.chain.clone(),
        })
        .collect()
}

async fn in_file(global: &Global, what: &str, file: &Path, args: &TrustExplain) -> Outcome {
    let contents = stores::read(what, file, &args.password, Keys::Drop)?;
    let (mut accepted, mut parts, mut notes) = (true, Vec::new(), Vec::new());
    let all = to_judge(&contents);
    if all.len() > MAX_ENTRIES {
        notes.push(format!(
            "the first {MAX_ENTRIES} of {} entries were judged; emccd trust import --dry-run tells of all",
            all.len()
        ));
    }
    for one in all.into_iter().take(MAX_ENTRIES) {
        let (fits, told, note) = judged(global, what, &one.chain, args.wanted.as_ref()).await?;
        accepted &= fits;
        notes.extend(note.filter(|note| !notes.contains(note)));
        parts.extend(told.into_iter().map(|part| match &one.name {
            Some(name) => pb::TrustPart {
                title: format!("{name}: {}", part.title),
                ..part
            },
            None => part,
        }));
    }
    let note = Some(notes.join("; ")).filter(|note| !note.is_empty());
    Ok(report(accepted, parts, note))
}

/// A chain in both roles, or by itself alone where no daemon can be asked: whether it would be accepted, the parts of
/// the explanation, and a note.
async fn judged(
    global: &Global,
    what: &str,
    chain: &[Certificate],
    wanted: Option<&ClusterId>,
) -> Outcome<(bool, Vec<pb::TrustPart>, Option<String>)> {
    let ders: Vec<_> = chain.iter().map(|c| c.der().clone()).collect();
    let asked = pb::CertificateChain {
        certificates: ders.iter().map(|der| der.to_vec()).collect(),
    };
    match ask(global, what, What::Chain(asked), wanted).await {
        Ok(parts) => {
            // One that is for one direction alone is as it should be when it is accepted in that one.
            let some = parts.iter().any(|part| part.holds);
            let wrong_eku = Some(Rejection::WrongEku.as_str());
            let accepted = some
                && parts
                    .iter()
                    .all(|part| part.holds || part.rejection.as_deref() == wrong_eku);
            Ok((accepted, parts, None))
        }
        Err(failure) if wanted.is_none() => {
            let note = format!(
                "judged by the file alone, without what is trusted here: {}: {}",
                failure.what(),
                failure.why()
            );
            let alone = explain::file(&ders, Clock::system().now());
            Ok((alone.holds(), vec![part(alone)], Some(note)))
        }
        Err(failure) => Err(failure),
    }
}

/// More than anybody reads.
const MAX_ENTRIES: usize = 64;

async fn ask(
    global: &Global,
    what: &str,
    asked: What,
    wanted: Option<&ClusterId>,
) -> Outcome<Vec<pb::TrustPart>> {
    let mut client = connect(global).await?;
    let request = pb::ExplainTrustRequest {
        what: Some(asked),
        as_cluster_id: wanted.map(ToString::to_string),
    };
    Ok(answer(what, client.explain_trust(request).await)?.parts)
}

#[derive(Debug, Serialize)]
struct Explanation {
    accepted: bool,
    parts: Vec<pb::TrustPart>,
}

fn report(accepted: bool, parts: Vec<pb::TrustPart>, note: Option<String>) -> Report {
    let mut text: String = parts.iter().map(part_text).collect();
    // The last line is what to type next.
    let next = if accepted {
        None
    } else {
        parts.iter().find_map(|part| part.mend.as_ref())
    };
    text += &next.map_or_else(
        || {
            if accepted {
                "accepted\n".to_owned()
            } else {
                String::new()
            }
        },
        |mend| format!("next: {}\n", clean(mend)),
    );
    let report = Report::new(text, &Explanation { accepted, parts });
    let report = if accepted { report } else { report.failing() };
    match note {
        Some(note) => report.with_note(note),
        None => report,
    }
}

fn part_text(part: &pb::TrustPart) -> String {
    let width = part
        .steps
        .iter()
        .map(|step| step.name.len())
        .max()
        .unwrap_or(0);
    let mut text = format!("{}\n", clean(&part.title));
    for step in &part.steps {
        let mark = match &*step.mark {
            good if good == Mark::Good.as_str() => "ok",
            bad if bad == Mark::Bad.as_str() => "FAIL",
            _ => "-",
        };
        text += &format!(
            "  {mark:4}  {:width$}  {}\n",
            clean(&step.name),
            clean(&step.text)
        );
        for line in &step.details {
            text += &format!("  {:4}  {:width$}    {}\n", "", "", clean(line));
        }
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_is_told_from_how_it_is_written() {
        let read = |text: &str| Target::read(text, |path| path == Path::new("odd"));
        let file = |name: &str| Ok(Target::File(name.into()));
        for reason in ["unknown-issuer", "unknown_issuer"] {
            assert_eq!(read(reason), Ok(Target::Reason(Rejection::UnknownIssuer)));
        }
        for name in ["odd", "./expired", "new/tokyo", "tokyo.pem", "store.jks"] {
            assert_eq!(read(name), file(name));
        }
        assert_eq!(read("tokyo"), Ok(Target::Peer("tokyo".parse().unwrap())));
        for address in ["t.example:8444", "10.0.0.7:8444", "[2001:db8::7]:8444"] {
            assert_eq!(read(address), Ok(Target::Address(address.parse().unwrap())));
        }
        for (wrong, why) in [
            ("t.example:", "is no port"),
            ("t.example:0", "is no port"),
            ("t.example:99999", "1 to 65535"),
            ("t..example:8444", "no host name"),
            ("2001:db8::7:8444", "in brackets"),
            ("https://t.example:8444", "a URL"),
            ("to kyo", "no cluster ID"),
            ("", "no cluster ID"),
        ] {
            let said = read(wrong).unwrap_err();
            assert!(said.contains(why), "{wrong}: {said}");
        }
    }

    #[test]
    fn each_reason_has_a_page_of_its_own_with_all_that_one_asks() {
        for rejection in Rejection::ALL {
            let page = refusal_page(rejection);
            let begin = format!("# {}\n\n{}.\n", rejection.word(), rejection.meaning());
            assert!(page.starts_with(&begin), "{page}");
            for part in [
                "\n## What it means\n",
                "\n## What each side sees\n",
                "\n## How to find out\n",
                "\n## What mends it\n",
                "\n## In Tomcat's words\n",
                "**Who refuses**",
                "**Who is refused**",
                "\n```\nemccd ",
            ] {
                assert!(page.contains(part), "{rejection}: no {part:?}");
            }
            // What the log and `cluster status` say is found on the page.
            assert!(page.contains(rejection.as_str()), "{rejection}");
        }
    }

    #[test]
    fn a_chain_is_judged_whole_and_entries_of_a_store_one_by_one() {
        use crate::trust::{
            fixtures::{Authority, Spec},
            formats::{Entry, Format},
        };
        let root = Authority::new("Root");
        let issuing = Authority::under("Issuing", &root);
        let leaf = Spec::new("a.example").signed_by(&issuing).certificate();
        let other = Spec::new("b.example").self_signed().certificate();
        let asked = |of: &[(Option<&str>, &Certificate)]| {
            let entries = of.iter().map(|(alias, certificate)| {
                Entry::trusted(alias.map(str::to_owned), (*certificate).clone())
            });
            let contents = Contents {
                format: Format::Jks,
                entries: entries.collect(),
            };
            let all = to_judge(&contents).into_iter();
            all.map(|one| (one.name, one.chain.len()))
                .collect::<Vec<_>>()
        };
        let (root, issuing) = (root.certificate(), issuing.certificate());
        assert_eq!(asked(&[(Some("x"), &other)]), [(None, 1)]);
        // In whatever order.
        let chain = [(None, &leaf), (None, &root), (None, &issuing)];
        assert_eq!(asked(&chain), [(None, 3)]);
        // Two of one name that signed themselves: the one is what came after the other.
        let new = Spec::new("b.example").self_signed().certificate();
        assert_eq!(asked(&[(None, &other), (None, &new)]).len(), 2);
        let several = [(Some("tokyo"), &leaf), (None, &other), (Some("ca"), &root)];
        let names = ["tokyo", "CN=b.example", "ca"];
        assert_eq!(
            asked(&several),
            names.map(|name| (Some(name.to_owned()), 1))
        );
    }

    #[test]
    fn the_text_lines_up_and_ends_with_what_to_type() {
        let step = |name: &str, mark: &str, details: &[&str]| pb::TrustStep {
            name: name.to_owned(),
            mark: mark.to_owned(),
            text: "so it is".to_owned(),
            details: details.iter().map(|d| (*d).to_owned()).collect(),
            rejection: None,
        };
        let part = pb::TrustPart {
            title: "t.example:8444".to_owned(),
            steps: vec![
                step("name", "good", &[]),
                step("certificate", "noted", &["issuer \u{1b}[31m"]),
                step("dates", "bad", &[]),
            ],
            holds: false,
            rejection: Some("expired".to_owned()),
            mend: Some("emccd cert new".to_owned()),
        };
        let told = report(false, vec![part.clone()], None);
        let expected = "t.example:8444\n  ok    name         so it is\n  -     certificate  so it is\n                       \
                        issuer \\u{1b}[31m\n  FAIL  dates        so it is\n\nnext: emccd cert new\n";
        assert_eq!(told.text, expected);
        assert!(told.fails);
        assert_eq!(told.json["parts"][0]["rejection"], "expired");
        let fine = report(true, vec![part], None);
        assert!(fine.text.ends_with("\naccepted\n") && !fine.fails);
    }
}
