//! The table is complete, its texts and its types say the same, and no text that is no value gets through.

use std::{collections::BTreeSet, fs, path::Path};

use proptest::prelude::*;

use super::*;

fn put(name: &str, text: &str) -> Result<Parameters, Error> {
    let mut all = Parameters::default();
    find(name)?.put(&mut all, text)?;
    Ok(all)
}

#[test]
fn the_tables_defaults_are_the_types_defaults() {
    for parameter in TABLE {
        let mut all = Parameters::default();
        assert_eq!(
            parameter.value(&all),
            parameter.default,
            "{}",
            parameter.name
        );
        parameter.put(&mut all, parameter.default).unwrap();
        assert_eq!(all, Parameters::default(), "{}", parameter.name);
    }
}

#[test]
fn each_parameter_has_a_place_of_its_own() {
    // A value of each that is not its default; all of them together differ in every field.
    let others = [
        ("maximum-concurrent-requests", "17"),
        ("multiple-login-behavior", "auto-logout"),
        ("multiple-login-unreachable", "refuse"),
        ("enforce-intra-cluster-maximum-login-time", "on"),
        ("intra-cluster-maximum-login-time", "0:30"),
        ("inter-cluster-maximum-login-time", "168:00"),
        ("emcc-geolocation-filter", "A3,country"),
        ("validate-ip-address", "on"),
        ("trusted-ips", "10.0.0.1;2001:db8::1"),
        ("allow-proxy", "on"),
        ("unknown-user-answer", "as-wrong-pin"),
        ("end-sessions-on-revocation", "off"),
        ("default-tftp-server-for-emcc-login-device", "tftp.example"),
        ("backup-tftp-server-for-emcc-login-device", "10.0.0.2"),
        ("certificate-renew-before", "30"),
        ("certificate-renew-jitter", "5"),
        ("certificate-renew-override-before", "2"),
        ("certificate-drain-time", "10"),
    ];
    let names: BTreeSet<_> = TABLE.iter().map(|p| p.name).collect();
    assert_eq!(names.len(), TABLE.len());
    assert_eq!(names, others.iter().map(|(name, _)| *name).collect());
    let (all, problems) = Parameters::from_stored(others);
    assert!(problems.is_empty(), "{problems:?}");
    for (name, text) in others {
        let parameter = find(name).unwrap();
        assert_eq!(parameter.value(&all), text, "{name}");
        assert_ne!(text, parameter.default, "{name}");
        let alone = put(name, text).unwrap();
        for other in TABLE.iter().filter(|p| p.name != name) {
            assert_eq!(other.value(&alone), other.default, "{name}");
        }
    }
}

#[test]
fn every_row_says_what_it_does_and_why() {
    for parameter in TABLE {
        assert!(parameter.meaning.ends_with('.'), "{}", parameter.name);
        assert!(!parameter.why.is_empty() && !parameter.why.ends_with('.'));
        assert!(!parameter.replaces.ends_with('.'), "{}", parameter.name);
    }
    for left_out in NOT_TAKEN_OVER {
        assert!(!left_out.why.is_empty() && !left_out.why.ends_with('.'));
        assert!(TABLE.iter().all(|p| p.name != left_out.name));
    }
    assert!(NOT_TAKEN_OVER.is_sorted_by_key(|l| l.name));
    // A limit that the incumbent keeps at each user is looked for here too.
    assert!(matches!(
        find("per-user-maximum-login-time"),
        Err(Error::LeftOut(_))
    ));
}

#[test]
fn what_is_no_value_is_refused_with_what_would_be_one() {
    for (name, text, word) in [
        ("maximum-concurrent-requests", "0", "out of range"),
        ("maximum-concurrent-requests", "4097", "out of range"),
        (
            "maximum-concurrent-requests",
            "99999999999999999999",
            "out of range",
        ),
        ("maximum-concurrent-requests", "+5", "whole number"),
        ("maximum-concurrent-requests", "", "whole number"),
        ("multiple-login-behavior", "Allowed", "none of its words"),
        ("multiple-login-unreachable", "", "none of its words"),
        ("unknown-user-answer", "23", "none of its words"),
        ("enforce-intra-cluster-maximum-login-time", "1", "on or off"),
        ("intra-cluster-maximum-login-time", "8", "hours and minutes"),
        (
            "intra-cluster-maximum-login-time",
            "8:0",
            "hours and minutes",
        ),
        (
            "intra-cluster-maximum-login-time",
            "-8:00",
            "hours and minutes",
        ),
        ("intra-cluster-maximum-login-time", "8:60", "59 minutes"),
        ("intra-cluster-maximum-login-time", "168:01", "than a week"),
        ("inter-cluster-maximum-login-time", "169:00", "than a week"),
        (
            "inter-cluster-maximum-login-time",
            "99999999999999999999:00",
            "than a week",
        ),
        ("emcc-geolocation-filter", "", "no name of a field"),
        (
            "emcc-geolocation-filter",
            "country,,A3",
            "no name of a field",
        ),
        ("emcc-geolocation-filter", "a b", "no name of a field"),
        ("trusted-ips", "", "no address"),
        ("trusted-ips", ";", "no address"),
        ("trusted-ips", "10.0.0.0/8", "no IP address"),
        ("trusted-ips", "10.0.0.1,10.0.0.2", "no IP address"),
        ("trusted-ips", "proxy.example", "no IP address"),
        (
            "default-tftp-server-for-emcc-login-device",
            "tftp.example:69",
            "host name",
        ),
        ("default-tftp-server-for-emcc-login-device", "", "host name"),
        (
            "default-tftp-server-for-emcc-login-device",
            "10.0.0.256",
            "host name",
        ),
    ] {
        let error = put(name, text).unwrap_err();
        let told = error.to_string();
        assert!(
            told.contains(word) && told.contains("allowed: ") && told.starts_with(name),
            "{name} {text:?}: {told}"
        );
    }
}

#[test]
fn a_long_list_of_addresses_is_refused_as_a_whole() {
    let fits = vec!["10.0.0.1"; 113].join(";");
    assert!(fits.len() <= kind::MAX_LENGTH);
    put("trusted-ips", &fits).unwrap();
    let error = put("trusted-ips", &format!("{fits};10.0.0.2")).unwrap_err();
    assert!(error.to_string().contains("too many"), "{error}");
}

#[test]
fn the_incumbents_words_are_understood() {
    assert!(put("allow-proxy", "True").unwrap().allow_proxy);
    assert!(!put("allow-proxy", "False").unwrap().allow_proxy);
    let spaced = put("trusted-ips", " 10.0.0.1 ; 10.0.0.2; ").unwrap();
    assert_eq!(spaced.trusted_ips.len(), 2);
    let mapped = put("trusted-ips", "::ffff:10.0.0.1").unwrap();
    assert!(mapped.trusted_ips.contains(&"10.0.0.1".parse().unwrap()));
}

#[test]
fn a_misspelt_name_gets_the_right_one() {
    for (given, meant) in [
        ("max-concurrent-requests", "maximum-concurrent-requests"),
        ("Maximum Concurrent Requests", "maximum-concurrent-requests"),
        ("multiple_login_behavior", "multiple-login-behavior"),
        ("multiple-login-behaviour", "multiple-login-behavior"),
        ("trusted-ip", "trusted-ips"),
    ] {
        let told = find(given).unwrap_err().to_string();
        assert!(told.contains(&format!("did you mean {meant}?")), "{told}");
    }
    let told = find("colour\n").unwrap_err().to_string();
    assert_eq!(told, "there is no parameter colour");
    assert!(find(&"x".repeat(5_000)).unwrap_err().to_string().len() < 200);
    assert_eq!(
        find("").unwrap_err().to_string(),
        "there is no parameter \"\""
    );
}

#[test]
fn what_is_left_out_says_why() {
    let error = find("Remote Cluster Update Interval").unwrap_err();
    assert!(matches!(error, Error::LeftOut(_)), "{error}");
    assert!(error.to_string().contains("because a link proves itself"));
}

#[test]
fn what_is_stored_and_unknown_here_is_told_and_harms_nothing() {
    let (all, problems) = Parameters::from_stored([
        ("maximum-concurrent-requests", "9"),
        ("of-a-newer-version", "1"),
        ("multiple-login-behavior", "sometimes"),
    ]);
    assert_eq!(problems.len(), 2);
    assert_eq!(all, put("maximum-concurrent-requests", "9").unwrap());
}

#[test]
fn a_limit_holds_only_where_it_is_one() {
    let mut all = Parameters::default();
    assert_eq!(all.intra_cluster_limit(), None);
    assert_eq!(all.inter_cluster_limit(), Some(Duration::from_secs(36_000)));
    all.enforce_intra_cluster_maximum_login_time = true;
    assert_eq!(all.intra_cluster_limit(), Some(Duration::from_secs(28_800)));
    all.intra_cluster_maximum_login_time = Duration::ZERO;
    all.inter_cluster_maximum_login_time = Duration::ZERO;
    assert_eq!(all.intra_cluster_limit(), None);
    assert_eq!(all.inter_cluster_limit(), None);
}

#[test]
fn the_page_is_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/parameters.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, markdown()).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap() == markdown(),
        "docs/parameters.md is out of date: UPDATE_GOLDEN=1 cargo test --lib parameters"
    );
}

proptest! {
    #[test]
    fn what_is_taken_is_written_so_that_it_reads_back(index in 0..TABLE.len(), text in ".{0,40}|[0-9]{1,3}:[0-9]{2}|[0-9]{1,4}|[a-z0-9.]{1,12}([;,][a-z0-9.]{1,12}){0,3}") {
        let parameter = &TABLE[index];
        if let Ok(kept) = parameter.canonical(&text) {
            prop_assert_eq!(parameter.canonical(&kept), Ok(kept));
        }
        let _ = find(&text);
    }
}
