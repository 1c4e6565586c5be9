//! What an unknown name may have been meant to be. Pure.

/// Says that there is no such thing, and which known one is closest.
pub(super) fn unknown<'a>(
    what: &str,
    wanted: &str,
    known: impl Iterator<Item = &'a str>,
) -> String {
    let best = known
        .map(|name| (name, strsim::jaro_winkler(name, wanted)))
        .max_by(|a, b| a.1.total_cmp(&b.1));
    match best {
        Some((name, likeness)) if likeness > LIKE => {
            format!("there is no such {what}; did you mean `{name}`?")
        }
        _ => format!("there is no such {what}"),
    }
}

/// Below this a name is another one, and no slip.
const LIKE: f64 = 0.75;
