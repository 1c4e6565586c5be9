//! What stands in the phone's URLs: reading a query, and writing the URLs we hand out. Pure.
//!
//! A PIN arrives in the query, since phones send it so. It goes straight into its own type, and nothing
//! here can print it.

use std::fmt::Write as _;

use zeroize::Zeroizing;

use crate::{
    domain::{ids::DeviceName, login::LoginType},
    edge::phone::xml::MAX_URL_CHARS,
    secret::{Pin, PinError, Ticket},
};

/// The one path, as it stands in the service URLs of phones.
pub const PATH: &str = "/emapp/EMAppServlet";

/// Longest query that is read, in bytes. A URL of 256 characters plus two fields of 128 bytes, all of them
/// percent-encoded, is half of it.
pub const MAX_QUERY_BYTES: usize = 4_096;

/// Longest host and port, in bytes: what a phone's limit for URLs leaves beside the longest device name.
const MAX_AUTHORITY_BYTES: usize = MAX_URL_CHARS
    - "https://".len()
    - PATH.len()
    - "?device=".len()
    - 64
    - "&EMCC=false".len()
    - "&ticket=&profile=99".len()
    - Ticket::CHARS;

/// What the phone wants.
#[derive(Clone, Debug)]
pub enum Asked {
    /// The page that fits who is on the phone.
    Start,
    /// Log in as typed. A field that is missing is as good as blank.
    Login {
        /// The name.
        name: Option<String>,
        /// The PIN.
        pin: Option<Result<Pin, PinError>>,
    },
    /// Log in with the device profile that was chosen.
    Choose {
        /// What stands in for the PIN; none when what came can't be a ticket.
        ticket: Option<Ticket>,
        /// Which of the profiles, from 0; a number that none can have when it is none.
        entry: usize,
    },
    /// Log out now.
    Logout,
}

/// A query, read.
#[derive(Clone, Debug)]
pub struct Query {
    /// `device`, as it came.
    pub device: Option<String>,
    /// `EMCC`: whether the phone can log in across clusters; none when it doesn't say.
    pub emcc: Option<bool>,
    /// `loginType`, as it came.
    pub login_type: Option<String>,
    /// What is to be done.
    pub asked: Asked,
    /// Why a part could not be read; that part is missing above.
    pub unreadable: Option<Unreadable>,
}

/// Why a query can't be read. It says nothing of the query itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// A parameter stands there twice; which one is meant can't be told.
    #[error("a parameter of the request occurs twice")]
    Doubled,
    /// It is not UTF-8.
    #[error("a parameter of the request is not UTF-8")]
    NotUtf8,
    /// It is longer than [`MAX_QUERY_BYTES`].
    #[error("the request is longer than {MAX_QUERY_BYTES} bytes")]
    TooLong,
}

impl Query {
    /// Reads a query. Parameters we don't know are ignored, whatever they hold.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let mut fields = Fields::default();
        if text.len() > MAX_QUERY_BYTES {
            fields.unreadable = Some(Unreadable::TooLong);
        } else {
            for pair in text.split('&') {
                fields.take(pair);
            }
        }
        let asked = if fields
            .logout
            .is_some_and(|v| v.eq_ignore_ascii_case("true"))
        {
            Asked::Logout
        } else if let Some(ticket) = fields.ticket {
            let entry = fields.profile.and_then(|number| number.parse().ok());
            Asked::Choose {
                ticket: Ticket::parse(&ticket),
                entry: entry.unwrap_or(usize::MAX),
            }
        } else if fields.name.is_some() || fields.pin.is_some() {
            Asked::Login {
                name: fields.name,
                pin: fields
                    .pin
                    .map(|mut pin| Pin::new(std::mem::take(&mut *pin))),
            }
        } else {
            Asked::Start
        };
        Self {
            device: fields.device,
            emcc: fields.emcc.map(|v| v.eq_ignore_ascii_case("true")),
            login_type: fields.login_type,
            asked,
            unreadable: fields.unreadable,
        }
    }
}

#[derive(Default)]
struct Fields {
    device: Option<String>,
    emcc: Option<String>,
    login_type: Option<String>,
    logout: Option<String>,
    name: Option<String>,
    pin: Option<Zeroizing<String>>,
    ticket: Option<Zeroizing<String>>,
    profile: Option<String>,
    unreadable: Option<Unreadable>,
}

impl Fields {
    fn take(&mut self, pair: &str) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let stored = match name {
            "device" => store(&mut self.device, value),
            "EMCC" => store(&mut self.emcc, value),
            "loginType" => store(&mut self.login_type, value),
            "doLogout" => store(&mut self.logout, value),
            "userid" => store(&mut self.name, value),
            "ticket" => store_secret(&mut self.ticket, value),
            "profile" => store(&mut self.profile, value),
            "seq" => store_secret(&mut self.pin, value),
            _ => Ok(()),
        };
        if let Err(unreadable) = stored {
            self.unreadable.get_or_insert(unreadable);
        }
    }
}

/// As [`store`], for what must not stay in memory.
fn store_secret(field: &mut Option<Zeroizing<String>>, value: &str) -> Result<(), Unreadable> {
    let value = Zeroizing::new(decode(value)?);
    if field.is_some() {
        return Err(Unreadable::Doubled);
    }
    *field = Some(value);
    Ok(())
}

fn store(field: &mut Option<String>, value: &str) -> Result<(), Unreadable> {
    let value = decode(value)?;
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(Unreadable::Doubled),
    }
}

/// Decodes `+` and `%XX`. A `%` that begins no such group stands for itself, as browsers have it.
fn decode(value: &str) -> Result<String, Unreadable> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(value.len()));
    let mut rest = value.as_bytes();
    loop {
        rest = match rest {
            [] => break,
            [b'%', high, low, tail @ ..] => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    bytes.push(high << 4 | low);
                    tail
                }
                _ => {
                    bytes.push(b'%');
                    rest.get(1..).unwrap_or_default()
                }
            },
            [first, tail @ ..] => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                tail
            }
        };
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(Unreadable::NotUtf8),
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

/// Where phones find us: scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    scheme: &'static str,
    authority: String,
}

/// A base URL that can't be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a base URL must be http or https with a host and perhaps a port, for example https://em.example:8443"
)]
pub struct InvalidBaseUrl;

impl BaseUrl {
    /// Reads `https://host:port` or `http://host:port`.
    ///
    /// # Errors
    /// [`InvalidBaseUrl`] when it is anything else.
    pub fn new(text: &str) -> Result<Self, InvalidBaseUrl> {
        let (scheme, rest) = match text.split_once("://") {
            Some(("https", rest)) => ("https", rest),
            Some(("http", rest)) => ("http", rest),
            _ => return Err(InvalidBaseUrl),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if !is_authority(authority) {
            return Err(InvalidBaseUrl);
        }
        let authority = authority.to_owned();
        Ok(Self { scheme, authority })
    }

    /// The same scheme under the name by which the phone called us, when that is a sane one. A phone that
    /// reached us by one name can reach us by it again.
    #[must_use]
    pub fn as_called(&self, host: Option<&str>) -> Self {
        match host {
            Some(host) if is_authority(host) => Self {
                scheme: self.scheme,
                authority: host.to_owned(),
            },
            _ => self.clone(),
        }
    }

    /// The start page of a phone: what its service URL says, without anything that was typed.
    #[must_use]
    pub fn start(
        &self,
        device: &DeviceName,
        emcc: Option<bool>,
        login_type: Option<LoginType>,
    ) -> String {
        // Nothing here needs percent-encoding: a device name is made of unreserved characters.
        let mut url = format!("{}://{}{PATH}?device={device}", self.scheme, self.authority);
        if let Some(emcc) = emcc {
            let _ = write!(url, "&EMCC={emcc}");
        }
        if let Some(login_type) = login_type {
            let _ = write!(url, "&loginType={login_type}");
        }
        url
    }

    /// The link that logs out without asking.
    #[must_use]
    pub fn logout(&self, device: &DeviceName, emcc: Option<bool>) -> String {
        let mut url = self.start(device, emcc, None);
        url.push_str("&doLogout=true");
        url
    }
}

/// Whether a text is a host name or an address with perhaps a port, and nothing else.
fn is_authority(text: &str) -> bool {
    if text.len() > MAX_AUTHORITY_BYTES {
        return false;
    }
    let (is_host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) => {
                let is_address = !address.is_empty()
                    && address
                        .bytes()
                        .all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'));
                (is_address, port)
            }
            None => return false,
        },
        None => {
            let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            let is_host = !host.is_empty()
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
            (is_host, port)
        }
    };
    let is_port = match port.strip_prefix(':') {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok(),
        None => port.is_empty(),
    };
    is_host && is_port
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(text: &str) -> (Option<String>, Option<Result<Pin, PinError>>) {
        match Query::read(text).asked {
            Asked::Login { name, pin } => (name, pin),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_submission_is_decoded() {
        let query =
            Query::read("device=SEP1&EMCC=true&loginType=DN&userid=a+b%40c%C3%BC&seq=12%2A");
        assert_eq!(query.device.as_deref(), Some("SEP1"));
        assert_eq!(query.emcc, Some(true));
        assert_eq!(query.login_type.as_deref(), Some("DN"));
        assert_eq!(query.unreadable, None);
        let (name, pin) = login("userid=a+b%40c%C3%BC&seq=12%2A");
        assert_eq!(name.as_deref(), Some("a b@cü"));
        assert_eq!(pin.unwrap().unwrap().expose(), "12*");
    }

    #[test]
    fn a_choice_is_a_ticket_and_a_number_and_comes_before_what_is_typed() {
        let chosen = |text: &str| match Query::read(text).asked {
            Asked::Choose { ticket, entry } => (ticket.map(|t| t.expose()), entry),
            other => panic!("{other:?}"),
        };
        let good = "0a".repeat(16);
        assert_eq!(
            chosen(&format!(
                "device=SEP1&ticket={good}&profile=2&userid=ana&seq=1"
            )),
            (Some(good.clone()), 2)
        );
        for odd in ["", "x", "-1", "1.5", "99999999999999999999999"] {
            let (_, entry) = chosen(&format!("ticket={good}&profile={odd}"));
            assert_eq!(entry, usize::MAX, "{odd}");
        }
        assert_eq!(chosen("ticket=abc&profile=0"), (None, 0));
        assert!(
            !format!("{:?}", Query::read(&format!("ticket={good}&profile=0"))).contains("0a0a")
        );
        assert!(matches!(
            Query::read(&format!("ticket={good}&profile=0&doLogout=true")).asked,
            Asked::Logout
        ));
    }

    #[test]
    fn one_field_makes_a_submission_and_a_blank_one_is_there() {
        assert!(matches!(login("userid="), (Some(name), None) if name.is_empty()));
        assert!(matches!(login("seq="), (None, Some(Err(PinError::Blank)))));
        assert!(matches!(Query::read("device=SEP1").asked, Asked::Start));
        assert!(matches!(Query::read("").asked, Asked::Start));
    }

    #[test]
    fn a_logout_needs_the_word_true_and_wins() {
        assert!(matches!(
            Query::read("doLogout=true&userid=a&seq=1").asked,
            Asked::Logout
        ));
        assert!(matches!(Query::read("doLogout=false").asked, Asked::Start));
        assert!(matches!(Query::read("dologout=true").asked, Asked::Start));
    }

    #[test]
    fn what_cannot_be_read_is_named_and_left_out() {
        let query = Query::read("device=SEP1&userid=%FF%FE&seq=1234");
        assert_eq!(query.unreadable, Some(Unreadable::NotUtf8));
        assert_eq!(query.device.as_deref(), Some("SEP1"));
        for doubled in ["userid=a&userid=b", "seq=1&seq=1", "device=a&device=b"] {
            assert_eq!(
                Query::read(doubled).unreadable,
                Some(Unreadable::Doubled),
                "{doubled}"
            );
        }
        let long = format!("device=SEP1&x={}", "y".repeat(MAX_QUERY_BYTES));
        assert_eq!(Query::read(&long).unreadable, Some(Unreadable::TooLong));
        assert_eq!(Query::read(&long).device, None);
        assert_eq!(Query::read("x=%FF&x=1&device=SEP1").unreadable, None);
    }

    #[test]
    fn a_percent_sign_alone_stands_for_itself() {
        assert_eq!(decode("100%").unwrap(), "100%");
        assert_eq!(decode("%4").unwrap(), "%4");
        assert_eq!(decode("%zz%41").unwrap(), "%zzA");
    }

    #[test]
    fn a_read_query_prints_no_pin() {
        let query = Query::read("device=SEP1&userid=ana&seq=48151623");
        assert!(!format!("{query:?}").contains("4815"));
    }

    #[test]
    fn only_a_sane_host_is_taken_over() {
        let base = BaseUrl::new("https://em.example:8443/").unwrap();
        for sane in [
            "10.0.0.1",
            "phone-host_1.example:443",
            "[::1]:8443",
            "[2001:db8::1]",
        ] {
            assert_eq!(base.as_called(Some(sane)).authority, sane);
        }
        let long = "a".repeat(MAX_AUTHORITY_BYTES + 1);
        for odd in [
            "", "a:b", "a:", "a:99999", "a b", "a/b", "u@h", "a?b", "<x>", "[::1", "[x]:1", ":80",
            "a:+1", &long,
        ] {
            assert_eq!(base.as_called(Some(odd)), base, "{odd}");
        }
        assert_eq!(base.as_called(None), base);
    }

    #[test]
    fn a_base_url_is_scheme_host_and_port() {
        for odd in [
            "",
            "em.example",
            "ftp://em.example",
            "https://",
            "https://a/b",
            "https://u@h",
        ] {
            assert_eq!(BaseUrl::new(odd), Err(InvalidBaseUrl), "{odd}");
        }
    }

    #[test]
    fn the_longest_url_fits_a_phone() {
        let base = BaseUrl::new(&format!("https://{}", "h".repeat(MAX_AUTHORITY_BYTES))).unwrap();
        let device = DeviceName::new("d".repeat(64)).unwrap();
        assert!(base.start(&device, Some(false), Some(LoginType::Uid)).len() <= MAX_URL_CHARS);
        assert!(base.logout(&device, Some(false)).len() <= MAX_URL_CHARS);
        let choice = base.start(&device, Some(false), None).len()
            + "&ticket=&profile=99".len()
            + Ticket::CHARS;
        assert!(choice <= MAX_URL_CHARS);
    }
}
