//! What an unknown name may have been meant to be. Pure.

/// Says that there is no such thing, and which known one is closest.
pub(super) fn unknown<'a>(
    what: &str,
    wanted: &str,
    known: impl Iterator<Item = &'a str>,
) -> String {
    match closest(wanted, known) {
        Some(name) => format!("there is no such {what}; did you mean `{name}`?"),
        None => format!("there is no such {what}"),
    }
}

/// The known name that this one is probably a slip for.
pub(super) fn closest<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|name| (name, strsim::jaro_winkler(name, wanted)))
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .filter(|(_, likeness)| *likeness > LIKE)
        .map(|(name, _)| name)
}

/// Below this a name is another one, and no slip.
const LIKE: f64 = 0.75;
