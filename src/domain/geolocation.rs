//! Which roaming device pool fits where a phone stands. Pure.
//!
//! Both are told in civic address fields (country, A1 to A6, …). A filter says which of them count; the pool with the
//! most fields that are the same wins, and of several such the one whose name comes first.

use std::collections::{BTreeMap, BTreeSet};

/// Civic address fields by name.
pub type Fields = BTreeMap<String, String>;

/// How many of the fields that count are the same. Case and blanks around a value don't matter, and a field without
/// a value is not told.
#[must_use]
pub fn matching(filter: Option<&BTreeSet<String>>, phone: &Fields, pool: &Fields) -> usize {
    let counts =
        |name: &str| filter.is_none_or(|names| names.iter().any(|n| n.eq_ignore_ascii_case(name)));
    phone
        .iter()
        .filter(|(name, value)| counts(name) && !value.trim().is_empty())
        .filter(|(name, value)| {
            pool.iter()
                .any(|(other, theirs)| other.eq_ignore_ascii_case(name) && same(value, theirs))
        })
        .count()
}

/// The pool that fits best; none where no field of any pool is the same.
pub fn best<'a, P>(
    filter: Option<&BTreeSet<String>>,
    phone: &Fields,
    pools: impl IntoIterator<Item = P>,
    place: impl Fn(&P) -> (&'a str, &'a Fields),
) -> Option<P>
where
    P: 'a,
{
    let mut best: Option<(usize, P)> = None;
    for pool in pools {
        let (name, fields) = place(&pool);
        let score = matching(filter, phone, fields);
        let is_better = match &best {
            None => score > 0,
            Some((most, holder)) => score > *most || (score == *most && name < place(holder).0),
        };
        if is_better {
            best = Some((score, pool));
        }
    }
    best.map(|(_, pool)| pool)
}

fn same(one: &str, other: &str) -> bool {
    one.trim().to_lowercase() == other.trim().to_lowercase()
}

#[cfg(test)]
mod tests {
    use proptest::{collection, option, prelude::*, sample};

    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn chosen<'a>(
        filter: Option<&[&str]>,
        phone: &Fields,
        pools: &'a [(&'a str, Fields)],
    ) -> Option<&'a str> {
        let filter: Option<BTreeSet<_>> =
            filter.map(|names| names.iter().map(|n| (*n).to_owned()).collect());
        best(filter.as_ref(), phone, pools, |pool| (pool.0, &pool.1)).map(|pool| pool.0)
    }

    #[test]
    fn the_pool_with_the_most_fields_that_count_wins() {
        let pools = [
            ("zurich", fields(&[("country", "CH"), ("A3", "Zürich")])),
            ("germany", fields(&[("country", "DE")])),
            ("berlin", fields(&[("country", "DE"), ("A3", "Berlin")])),
            ("bayern", fields(&[("country", "DE"), ("A1", "BY")])),
            ("nowhere", fields(&[])),
        ];
        let berlin = fields(&[("country", "DE"), ("A3", "Berlin"), ("A6", "Ring")]);
        for (filter, phone, expected) in [
            (None, &berlin, Some("berlin")),
            (Some(&["country", "A3"][..]), &berlin, Some("berlin")),
            // Of three with one field the first by name.
            (Some(&["country"]), &berlin, Some("bayern")),
            (Some(&["COUNTRY"]), &berlin, Some("bayern")),
            (Some(&["A6"]), &berlin, None),
            (Some(&[]), &berlin, None),
            (None, &fields(&[("country", " de ")]), Some("bayern")),
            (None, &fields(&[("A3", "ZÜRICH")]), Some("zurich")),
            (None, &fields(&[("country", "JP")]), None),
            (None, &fields(&[("country", "")]), None),
            (None, &fields(&[]), None),
        ] {
            assert_eq!(
                chosen(filter, phone, &pools),
                expected,
                "{filter:?} {phone:?}"
            );
        }
        assert_eq!(chosen(None, &berlin, &[]), None);
    }

    fn any_fields() -> impl Strategy<Value = Fields> {
        let name = sample::select(vec!["country", "A1", "A3", "A6"]).prop_map(str::to_owned);
        let value = sample::select(vec!["", "DE", "de", "JP", "Berlin"]).prop_map(str::to_owned);
        collection::btree_map(name, value, 0..4)
    }

    proptest! {
        #[test]
        fn nothing_beats_the_chosen_one_and_the_order_of_the_pools_does_not_matter(
            phone in any_fields(),
            places in collection::btree_map("[a-c][a-z]{0,2}", any_fields(), 0..6),
            filter in option::of(collection::btree_set(
                sample::select(vec!["country", "A1", "A3"]).prop_map(str::to_owned), 0..3)),
        ) {
            let pools: Vec<_> = places.into_iter().collect();
            let score = |pool: &(String, Fields)| matching(filter.as_ref(), &phone, &pool.1);
            let forth = best(filter.as_ref(), &phone, &pools, |p| (p.0.as_str(), &p.1));
            let back = best(filter.as_ref(), &phone, pools.iter().rev(), |p| (p.0.as_str(), &p.1));
            prop_assert_eq!(forth.map(|p| &p.0), back.map(|p| &p.0));
            match forth {
                None => prop_assert!(pools.iter().all(|pool| score(pool) == 0)),
                Some(best) => {
                    prop_assert!(score(best) > 0);
                    for pool in &pools {
                        let beaten = score(pool) < score(best)
                            || (score(pool) == score(best) && best.0 <= pool.0);
                        prop_assert!(beaten, "{:?} against {:?}", pool, best);
                    }
                }
            }
        }
    }
}
