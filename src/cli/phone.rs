//! `phone`: acts as a phone against any cluster's phone service, to try a login without walking to one.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal, Read},
    path::Path,
};

use serde_json::json;

use crate::{
    cli::{
        args::{Phone, PhoneTarget},
        cluster::shown,
        failure::{Failure, Outcome},
        output::{Report, clean_lines},
    },
    lab::phone::{Phone as Handset, Shown},
    secret::{Pin, PinError},
};

/// Runs one of the verbs.
///
/// # Errors
/// No answer, and a page with an EM code: the phone's user did not get what they wanted.
pub async fn run(verb: Phone) -> Outcome {
    let (what, shown) = match verb {
        Phone::Login(args) => {
            let what = format!("cannot log {} in on {}", args.user, args.target.device);
            let phone = handset(&what, &args.target)?;
            let pin = read_pin(&what, args.pin_file.as_deref())?;
            let device = args.target.device.as_str();
            let user = args.user.as_str();
            let shown = phone.login(device, args.login_type, user, pin.expose());
            let mut shown = answer(&what, &args.target, shown.await)?;
            if let Some(profile) = &args.profile
                && shown
                    .menu
                    .iter()
                    .any(|entry| entry.name == profile.as_str())
            {
                let chosen = phone.select(&shown, profile.as_str()).await;
                shown = answer(&what, &args.target, chosen)?;
            }
            (what.clone(), shown)
        }
        Phone::Logout(args) => {
            let what = format!("cannot log out on {}", args.target.device);
            let phone = handset(&what, &args.target)?;
            let shown = phone.logout(args.target.device.as_str()).await;
            (what.clone(), answer(&what, &args.target, shown)?)
        }
    };
    displayed(&what, &shown)
}

fn handset(what: &str, target: &PhoneTarget) -> Outcome<Handset> {
    let made = match &target.ca {
        Some(file) => {
            let pem = std::fs::read_to_string(file).map_err(|cause| {
                let why = format!("{}: {cause}", shown(file));
                Failure::new(what, why, "check the path and that you may read it")
            })?;
            Handset::https(&target.url, &pem)
        }
        None if target.url.starts_with("https:") => {
            return Err(Failure::new(
                what,
                "a phone trusts only the certificates it was given, and it was given none",
                "name the phone service's certificate with --ca FILE; emccd init wrote it on that cluster's node",
            ));
        }
        None => Handset::plain(&target.url),
    };
    made.map_err(|cause| {
        let next = "give the URL as https://HOST:PORT, and a PEM file with --ca";
        Failure::from_error(what, &cause, next)
    })
}

fn answer(
    what: &str,
    target: &PhoneTarget,
    shown: Result<Shown, crate::lab::phone::Error>,
) -> Outcome<Shown> {
    shown.map_err(|cause| {
        let next = format!(
            "check that {} is the phone service, that it runs, and that --ca is its certificate",
            target.url
        );
        Failure::from_error(what, &cause, next)
    })
}

/// What the phone shows is the answer. An EM code, a form where none is wanted and an HTTP error are no success.
fn displayed(what: &str, shown: &Shown) -> Outcome {
    let screen: Vec<_> = [&shown.title, &shown.text, &shown.prompt]
        .into_iter()
        .filter(|line| !line.is_empty())
        .map(|line| clean_lines(line))
        .collect();
    let screen = screen.join("\n");
    if let Some(code) = shown.em_code {
        let next = match &shown.reference {
            Some(reference) => format!("look for the ref {reference} in the logs of both clusters"),
            None => "look into the visiting cluster's log".to_owned(),
        };
        let why = format!("the phone shows EM code {code}:\n{screen}");
        let failure = Failure::new(what, why, next)
            .with("em_code", code)
            .with("phone_text", shown.headline());
        return Err(match &shown.reference {
            Some(reference) => failure.with("ref", reference.as_str()),
            None => failure,
        });
    }
    if !shown.menu.is_empty() {
        let names: Vec<_> = shown.menu.iter().map(|e| clean_lines(&e.name)).collect();
        return Err(Failure::new(
            what,
            format!("it asks which device profile to use: {}", names.join(", ")),
            "choose one of them with --profile NAME",
        ));
    }
    if shown.softkey("Yes").is_some() {
        return Err(Failure::new(
            what,
            format!("somebody is logged in on it already, so it asks:\n{screen}"),
            "log out first: emccd phone logout, with the same URL and device",
        ));
    }
    if shown.is_form() || !(200..300).contains(&shown.status) || shown.object.is_empty() {
        let why = format!(
            "the answer (HTTP {}) is no success:\n{screen}",
            shown.status
        );
        return Err(Failure::new(
            what,
            why,
            "check the URL and the device's name",
        ));
    }
    let answer = json!({
        "title": shown.title,
        "text": shown.text,
        "prompt": shown.prompt,
        "ref": shown.reference,
        "ms": shown.ms(),
    });
    Ok(Report::new(screen, &answer))
}

/// From a file, from a prompt, or from standard input; never from an argument, where every user of the
/// machine could see it.
pub(super) fn read_pin(what: &str, file: Option<&Path>) -> Outcome<Pin> {
    let failed = |cause: io::Error| {
        Failure::new(
            what,
            format!("no PIN: {cause}"),
            "give it with --pin-file FILE, or type it when asked",
        )
    };
    let pin = match file {
        Some(path) => File::open(path).and_then(|file| first_line(&mut BufReader::new(file))),
        None if io::stdin().is_terminal() => rpassword::prompt_password("PIN: "),
        None => first_line(&mut io::stdin().lock()),
    };
    Pin::new(pin.map_err(failed)?).map_err(|cause: PinError| {
        Failure::from_error(what, &cause, "put the PIN alone on the first line")
    })
}

pub(super) fn first_line(input: &mut dyn BufRead) -> io::Result<String> {
    let mut line = String::new();
    input.take(MAX_LINE_BYTES).read_line(&mut line)?;
    let pin = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(pin);
    Ok(line)
}

/// Far above the longest PIN, so that a wrong file is told as such.
const MAX_LINE_BYTES: u64 = 4_096;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::lab::phone::{MenuItem, SoftKey};

    fn page() -> Shown {
        Shown {
            status: 200,
            object: "CiscoIPPhoneText".to_owned(),
            title: "Extension Mobility".to_owned(),
            text: "Login successful".to_owned(),
            ..Shown::default()
        }
    }

    #[test]
    fn what_the_phone_shows_is_what_is_printed() {
        let report = displayed("cannot", &page()).unwrap();
        assert_eq!(report.text, "Extension Mobility\nLogin successful");
    }

    #[test]
    fn a_program_gets_the_code_and_the_ref_as_fields() {
        let refused = Shown {
            text: "Login is unavailable(23)".to_owned(),
            em_code: Some(23),
            reference: Some("7K3Q-9M2X".to_owned()),
            ..page()
        };
        let told = displayed("cannot", &refused).unwrap_err().to_json();
        assert_eq!(told["em_code"], 23);
        assert_eq!(told["ref"], "7K3Q-9M2X");
        assert_eq!(told["phone_text"], refused.headline());
        let without = Shown {
            reference: None,
            ..refused
        };
        let told = displayed("cannot", &without).unwrap_err().to_json();
        assert!(told.get("ref").is_none(), "{told}");
    }

    #[test]
    fn a_question_in_place_of_a_login_is_no_success() {
        let shown = Shown {
            text: "Log out of this phone?".to_owned(),
            softkeys: vec![SoftKey {
                name: "Yes".to_owned(),
                url: "https://em.example:8443/emapp/EMAppServlet?doLogout=true".to_owned(),
            }],
            ..page()
        };
        let text = displayed("cannot log anna in", &shown)
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("logged in on it already") && text.contains("emccd phone logout"),
            "{text}"
        );
    }

    #[test]
    fn a_menu_of_profiles_is_no_success_and_says_how_to_choose() {
        let shown = Shown {
            object: "CiscoIPPhoneMenu".to_owned(),
            text: String::new(),
            menu: ["desk", "lobby"]
                .map(|name| MenuItem {
                    name: name.to_owned(),
                    url: "https://em.example:8443/x".to_owned(),
                })
                .into(),
            ..page()
        };
        let text = displayed("cannot", &shown).unwrap_err().to_string();
        assert!(
            text.contains("desk, lobby") && text.contains("--profile NAME"),
            "{text}"
        );
    }

    #[test]
    fn an_em_code_is_a_failure_with_its_ref() {
        let shown = Shown {
            em_code: Some(23),
            reference: Some("7K3Q-9M2X".to_owned()),
            text: "Login is unavailable(23)".to_owned(),
            ..page()
        };
        let text = displayed("cannot log anna in", &shown)
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("EM code 23") && text.contains("unavailable(23)"),
            "{text}"
        );
        assert!(text.contains("next: look for the ref 7K3Q-9M2X"), "{text}");
    }

    #[test]
    fn a_form_or_an_error_page_is_no_success() {
        for shown in [
            Shown {
                object: "CiscoIPPhoneInput".to_owned(),
                ..page()
            },
            Shown {
                status: 500,
                ..page()
            },
            Shown {
                object: String::new(),
                ..page()
            },
        ] {
            displayed("cannot", &shown).unwrap_err();
        }
    }

    #[test]
    fn a_pin_is_the_first_line_and_never_printed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pin");
        fs::write(&file, "48151\r\nsecond\n").unwrap();
        assert_eq!(read_pin("cannot", Some(&file)).unwrap().expose(), "48151");
        fs::write(&file, "4815162342\u{0}").unwrap();
        let text = read_pin("cannot", Some(&file)).unwrap_err().to_string();
        assert!(!text.contains("48151"), "{text}");
        fs::write(&file, "\n").unwrap();
        let text = read_pin("cannot", Some(&file)).unwrap_err().to_string();
        assert!(text.contains("blank"), "{text}");
        let text = read_pin("cannot", Some(&dir.path().join("none")))
            .unwrap_err()
            .to_string();
        assert!(text.contains("--pin-file"), "{text}");
    }

    #[test]
    fn https_without_a_certificate_says_which_one() {
        let target = PhoneTarget {
            url: "https://emcc.berlin.example:8443".to_owned(),
            device: "SEP1".parse().unwrap(),
            ca: None,
        };
        let text = handset("cannot", &target).unwrap_err().to_string();
        assert!(text.contains("--ca FILE"), "{text}");
    }
}
