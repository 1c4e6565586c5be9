//! The PINs that people who guess try first, as a table of rules. Pure.

use super::Person;

/// One rule against trivial PINs.
#[derive(Debug)]
pub struct Rule {
    /// What programs know it by; a word that was ever used stays.
    pub code: &'static str,
    /// What a PIN must be, for people.
    pub text: &'static str,
    /// Whether these digits break it.
    pub is_broken: fn(&[u8], &Person<'_>) -> bool,
}

/// The rules, in the order in which they are told.
pub const TRIVIAL: [Rule; 8] = [
    Rule {
        code: "repeat_run",
        text: "one digit must not stand more than twice in a row",
        is_broken: |pin, _| pin.windows(3).any(all_same),
    },
    Rule {
        code: "contains_extension",
        text: "the extension must not be in it",
        is_broken: |pin, user| holds_extension(pin, user, false),
    },
    Rule {
        code: "reversed_extension",
        text: "the extension backwards must not be in it",
        is_broken: |pin, user| holds_extension(pin, user, true),
    },
    Rule {
        code: "few_distinct",
        text: "there must be three different digits at least",
        is_broken: |pin, _| (b'0'..=b'9').filter(|digit| pin.contains(digit)).count() < 3,
    },
    Rule {
        code: "name_keypad",
        text: "it must not be the name on the keys of a phone",
        is_broken: |pin, user| is_name(pin, user.name),
    },
    Rule {
        code: "repeated_group",
        text: "it must not be made of groups that repeat",
        is_broken: |pin, _| repeats(pin),
    },
    Rule {
        code: "keypad_line",
        text: "its keys must not stand in straight lines",
        is_broken: |pin, _| is_lines(pin),
    },
    Rule {
        code: "sequence",
        text: "it must not count up or down",
        is_broken: |pin, _| {
            let counts = |step: i16| pairs(pin).all(|(a, b)| i16::from(b) - i16::from(a) == step);
            pin.len() > 1 && (counts(1) || counts(-1))
        },
    },
];

/// A shorter extension is in too many PINs to say anything.
const SHORTEST_EXTENSION: usize = 3;

/// A shorter name says nothing either.
const SHORTEST_NAME: usize = 4;

/// Groups of fewer digits repeat in many PINs by chance, where they are not the whole PIN.
const SHORTEST_GROUP: usize = 3;

fn all_same(digits: &[u8]) -> bool {
    digits.iter().all(|digit| digits.first() == Some(digit))
}

fn pairs(pin: &[u8]) -> impl Iterator<Item = (u8, u8)> + '_ {
    pin.iter().copied().zip(pin.iter().copied().skip(1))
}

fn holds_extension(pin: &[u8], user: &Person<'_>, backwards: bool) -> bool {
    let digits = |b: &u8| b.is_ascii_digit();
    let mut extension: Vec<u8> = user.extension.unwrap_or_default().bytes().collect();
    extension.retain(digits);
    if backwards {
        extension.reverse();
    }
    let length = extension.len();
    length >= SHORTEST_EXTENSION && pin.windows(length).any(|part| part == extension)
}

/// The same group over and over, or one of three digits and more that comes again.
fn repeats(pin: &[u8]) -> bool {
    let is_all = |group: &[u8]| {
        let mut parts = pin.chunks_exact(group.len());
        parts.all(|part| part == group) && parts.remainder().is_empty()
    };
    let half = pin.len() / 2;
    let comes_again = || {
        pin.windows(SHORTEST_GROUP)
            .enumerate()
            .any(|(place, group)| {
                let behind = pin.get(place + SHORTEST_GROUP..).unwrap_or_default();
                behind.windows(SHORTEST_GROUP).any(|part| part == group)
            })
    };
    (1..=half).any(|length| pin.get(..length).is_some_and(is_all)) || comes_again()
}

/// Where a key stands: row and column.
const fn place(digit: u8) -> (i8, i8) {
    match digit {
        b'0' => (3, 1),
        b'1' => (0, 0),
        b'2' => (0, 1),
        b'3' => (0, 2),
        b'4' => (1, 0),
        b'5' => (1, 1),
        b'6' => (1, 2),
        b'7' => (2, 0),
        b'8' => (2, 1),
        _ => (2, 2),
    }
}

/// Straight lines one after the other, each of this many keys at least.
const SHORTEST_LINE: usize = 3;

/// The whole PIN is one line, or lines one after the other: nothing is left over.
fn is_lines(pin: &[u8]) -> bool {
    // How far the lines can reach so far; there is none of more than four keys.
    let mut ends = vec![0];
    let mut next = 0;
    while let Some(&from) = ends.get(next) {
        next += 1;
        for to in from + SHORTEST_LINE..=from + 4 {
            let is_next = !ends.contains(&to) && pin.get(from..to).is_some_and(is_line);
            if is_next {
                ends.push(to);
            }
        }
    }
    !pin.is_empty() && ends.contains(&pin.len())
}

/// From key to key always the same step to a neighbour.
fn is_line(pin: &[u8]) -> bool {
    let mut steps = pairs(pin).map(|(a, b)| {
        let ((row, column), (next_row, next_column)) = (place(a), place(b));
        (next_row - row, next_column - column)
    });
    let Some(first) = steps.next() else {
        return false;
    };
    let is_neighbour = first != (0, 0) && first.0.abs() <= 1 && first.1.abs() <= 1;
    is_neighbour && steps.all(|step| step == first)
}

/// One of the names, or two of them in either order, also with the first letter only of one: some people write
/// "First Last", others "Last, First".
fn is_name(pin: &[u8], name: &str) -> bool {
    if pin.len() < SHORTEST_NAME {
        return false;
    }
    let words: Vec<Vec<u8>> = name
        .split(|c: char| c.is_whitespace() || c == ',' || c == '-')
        .map(keys)
        .filter(|word| !word.is_empty())
        .collect();
    let is_both = |one: &[u8], other: &[u8]| {
        pin.strip_prefix(one)
            .is_some_and(|rest| rest == other || other.first().is_some_and(|key| rest == [*key]))
            || one
                .first()
                .is_some_and(|key| pin.strip_prefix(&[*key]) == Some(other))
    };
    words.iter().enumerate().any(|(place, one)| {
        let mut others = words
            .iter()
            .enumerate()
            .filter(|(there, _)| *there != place);
        one == pin || others.any(|(_, other)| is_both(one, other))
    })
}

/// The keys that spell a word, as on any phone. Letters that are on no key are left out.
fn keys(word: &str) -> Vec<u8> {
    word.chars()
        .flat_map(char::to_lowercase)
        .flat_map(|letter| plain(letter).bytes())
        .filter_map(|letter| match letter {
            b'a'..=b'c' => Some(b'2'),
            b'd'..=b'f' => Some(b'3'),
            b'g'..=b'i' => Some(b'4'),
            b'j'..=b'l' => Some(b'5'),
            b'm'..=b'o' => Some(b'6'),
            b'p'..=b's' => Some(b'7'),
            b't'..=b'v' => Some(b'8'),
            b'w'..=b'z' => Some(b'9'),
            _ => None,
        })
        .collect()
}

/// A small letter without its marks.
fn plain(letter: char) -> &'static str {
    const ALONE: &str = "abcdefghijklmnopqrstuvwxyz";
    match letter {
        'à'..='å' | 'ā' | 'ă' | 'ą' => "a",
        'æ' => "ae",
        'ç' | 'ć' | 'ĉ' | 'ċ' | 'č' => "c",
        'ð' | 'ď' | 'đ' => "d",
        'è'..='ë' | 'ē' | 'ĕ' | 'ė' | 'ę' | 'ě' => "e",
        'ĝ' | 'ğ' | 'ġ' | 'ģ' => "g",
        'ĥ' | 'ħ' => "h",
        'ì'..='ï' | 'ĩ' | 'ī' | 'ĭ' | 'į' | 'ı' => "i",
        'ĵ' => "j",
        'ķ' => "k",
        'ĺ' | 'ļ' | 'ľ' | 'ŀ' | 'ł' => "l",
        'ñ' | 'ń' | 'ņ' | 'ň' => "n",
        'ò'..='ö' | 'ø' | 'ō' | 'ŏ' | 'ő' => "o",
        'œ' => "oe",
        'ŕ' | 'ŗ' | 'ř' => "r",
        'ś' | 'ŝ' | 'ş' | 'š' | 'ș' => "s",
        'ß' => "ss",
        'ţ' | 'ť' | 'ŧ' | 'ț' => "t",
        'þ' => "th",
        'ù'..='ü' | 'ũ' | 'ū' | 'ŭ' | 'ů' | 'ű' | 'ų' => "u",
        'ŵ' => "w",
        'ý' | 'ÿ' | 'ŷ' => "y",
        'ź' | 'ż' | 'ž' => "z",
        _ => ALONE
            .find(letter)
            .and_then(|at| ALONE.get(at..=at))
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(pin: &str, user: &Person<'_>) -> Vec<&'static str> {
        let rules = TRIVIAL.iter();
        let broken = rules.filter(|rule| (rule.is_broken)(pin.as_bytes(), user));
        broken.map(|rule| rule.code).collect()
    }

    const JOHN: Person<'_> = Person {
        extension: Some("4711"),
        name: "John Doeß",
    };

    /// Each rule with the examples that the incumbents' documents give for it, and what looks like them.
    #[test]
    fn each_rule_finds_its_examples_and_leaves_what_is_like_them() {
        for (code, hits, misses) in [
            (
                "repeat_run",
                &["28883", "000123", "123555"][..],
                &["28838", "112233", "447744"][..],
            ),
            (
                "contains_extension",
                &["4711", "994711", "471193", "47114711"],
                &["471", "47-11", "417193", "117482"],
            ),
            (
                "reversed_extension",
                &["1174", "991174", "117482"],
                &["4711", "1147"],
            ),
            (
                "few_distinct",
                &["121212", "1111", "112211", "990909"],
                &["121213", "1123"],
            ),
            (
                "name_keypad",
                // john, doess, johndoess, jdoess, johnd
                &["5646", "36377", "564636377", "536377", "56463"],
                &["564", "56469", "95646", "3637"],
            ),
            (
                "repeated_group",
                &["408408", "123123", "408510408", "12121212", "4545", "7777"],
                &["408480", "408514", "12512", "451745"],
            ),
            (
                "keypad_line",
                &[
                    "2580",
                    "0852",
                    "159",
                    "753",
                    "147",
                    "963",
                    "456",
                    "258963",
                    "147258",
                    "159753",
                    "1472580",
                    "25800852",
                    "789456123",
                ],
                &[
                    "1590", "2589", "1470", "1379", "4654", "8", "258025", "2580259", "14714725",
                ],
            ),
            (
                "sequence",
                &["123456", "012345", "987654", "3210"],
                &["123457", "890123", "135790", "109876", "7"],
            ),
        ] {
            for pin in hits {
                assert!(broken(pin, &JOHN).contains(&code), "{code} misses {pin}");
            }
            for pin in misses {
                assert!(!broken(pin, &JOHN).contains(&code), "{code} hits {pin}");
            }
        }
    }

    #[test]
    fn a_good_pin_breaks_nothing_whoever_the_user_is() {
        for pin in ["246809", "135790", "271828", "48151623", "90718253"] {
            assert_eq!(broken(pin, &JOHN), [] as [&str; 0], "{pin}");
            assert_eq!(broken(pin, &Person::default()), [] as [&str; 0], "{pin}");
        }
    }

    #[test]
    fn what_a_user_is_called_is_folded_and_what_is_too_short_says_nothing() {
        let called = |name| Person {
            extension: Some("12"),
            name,
        };
        // Jürgen; O'Neil as one word; Ann-Marie as two.
        for (name, pin) in [
            ("Jürgen", "587436"),
            ("MÜLLER, Zoë", "685537"),
            ("Sam O'Neil", "66345"),
            ("Ann-Marie", "26662743"),
            ("Ann-Marie", "62743"),
            // johndoe, jdoe, johnd, doejohn, djohn, doej
            ("Doe, John", "5646363"),
            ("Doe, John", "5363"),
            ("Doe, John", "56463"),
            ("Doe, John", "3635646"),
            ("Doe, John", "35646"),
            ("Doe, John", "3635"),
            ("Doe, John Jay", "5646363"),
            ("John Jay Doe", "529363"),
        ] {
            assert!(
                broken(pin, &called(name)).contains(&"name_keypad"),
                "{name} {pin}"
            );
        }
        for (name, pin) in [
            ("Zoë", "963"),
            ("王伟", "2580"),
            ("", "1590"),
            ("  ", "9631"),
            ("John", "56465646"),
            ("Doe, John", "53"),
            ("Doe, John", "36356469"),
        ] {
            assert!(
                !broken(pin, &called(name)).contains(&"name_keypad"),
                "{name} {pin}"
            );
        }
        // An extension of two digits is in every third PIN.
        assert_eq!(broken("129375", &called("")), [] as [&str; 0]);
        let outside = Person {
            extension: Some("+49 30-4711"),
            name: "",
        };
        assert_eq!(broken("49304711", &outside), ["contains_extension"]);
        let letters = Person {
            extension: Some("ana-berlin"),
            name: "",
        };
        assert_eq!(broken("262237546", &letters), [] as [&str; 0]);
    }

    /// How many PINs of each length are left to a user without name and extension.
    #[test]
    fn the_rules_leave_nearly_all_pins() {
        let nobody = Person::default();
        for (length, left) in [(4, 9_344), (5, 96_468)] {
            let good = (0..10_u32.pow(length)).filter(|number| {
                let pin = format!("{number:0width$}", width = length as usize);
                TRIVIAL
                    .iter()
                    .all(|rule| !(rule.is_broken)(pin.as_bytes(), &nobody))
            });
            assert_eq!(good.count(), left, "{length}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_and_no_name_is_too_odd(pin in "[0-9]{0,70}", extension in ".{0,9}", name in ".{0,30}") {
            let user = Person { extension: Some(&extension), name: &name };
            let _ = broken(&pin, &user);
        }
    }
}
