//! Logging in: the form, the submission, the choice of a device profile, the success page.

use std::sync::Arc;

use tracing::{Instrument, Span, info};

use super::{
    Phone,
    failure::lost,
    xml::{InputItem, InputPage, MenuItem, MenuPage, SoftKey, TextPage},
};
use crate::{
    domain::{
        em_code::EmCode,
        ids::{LoginName, Ref},
        login::LoginType,
    },
    secret::{Pin, PinError, Ticket},
    visiting::{Choice, Failure, LoggedIn, LoginOutcome, PhoneChoice, PhoneLogin},
};

const PIN_ITEM: InputItem = InputItem {
    label: "PIN",
    param: "seq",
    flags: "NP",
};

impl Phone {
    /// The form for the phone's login type. It pre-fills nothing.
    pub(super) fn login_form(&self) -> String {
        let (prompt, label, flags) = match self.login_type {
            LoginType::Uid => ("Enter user ID and PIN", "User ID", "A"),
            LoginType::SelfService => {
                ("Enter self-service ID and PIN", "Self-Service User ID", "A")
            }
            LoginType::Extension => ("Enter extension and PIN", "Extension", "T"),
        };
        let param = "userid";
        let name = InputItem {
            label,
            param,
            flags,
        };
        InputPage::new(prompt, self.start_url.clone(), vec![name, PIN_ITEM]).to_xml()
    }

    /// Logs in with what was typed. The login goes on when the phone hangs up.
    pub(super) async fn login(
        &self,
        name: Option<String>,
        pin: Option<Result<Pin, PinError>>,
    ) -> Result<String, Failure> {
        let (name, pin) = match check_typed(name.as_deref(), pin) {
            Ok(typed) => typed,
            Err(cause) => return Err(self.refusal(EmCode::BlankUserIdOrPin, cause).await),
        };
        let reference = self.desk.new_ref();
        let login = PhoneLogin {
            device: self.device.to_string(),
            login_type: self.login_type,
            name: name.to_string(),
            pin: Some(pin),
            emcc: self.emcc,
            caller: self.caller,
            reference,
        };
        let desk = Arc::clone(&self.desk);
        self.outcome(reference, async move { desk.login(login).await })
            .await
    }

    /// Logs in with the device profile that was chosen.
    pub(super) async fn choose(
        &self,
        ticket: Option<Ticket>,
        entry: usize,
    ) -> Result<String, Failure> {
        let reference = self.desk.new_ref();
        let choice = PhoneChoice {
            device: self.device.to_string(),
            ticket,
            entry,
            emcc: self.emcc,
            caller: self.caller,
            reference,
        };
        let desk = Arc::clone(&self.desk);
        self.outcome(reference, async move { desk.choose(choice).await })
            .await
    }

    async fn outcome(
        &self,
        reference: Ref,
        login: impl Future<Output = Result<LoginOutcome, Failure>> + Send + 'static,
    ) -> Result<String, Failure> {
        let login = login.instrument(Span::current());
        match self.tasks.spawn("phone-login", login).await {
            Ok(Ok(LoginOutcome::LoggedIn(logged_in))) => Ok(self.success(&logged_in)),
            Ok(Ok(LoginOutcome::Choose(choice))) => Ok(self.question(&choice)),
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(lost(reference)),
        }
    }

    /// The page that asks which device profile it shall be. Each entry carries the ticket and a number: no PIN, no
    /// user ID and no name of a profile stands in a URL, and the longest of them fits a phone.
    fn question(&self, choice: &Choice) -> String {
        let ticket = choice.ticket.expose();
        let entries = choice.profiles.iter().enumerate().map(|(entry, profile)| {
            let url = format!("{}&ticket={ticket}&profile={entry}", self.choice_url);
            MenuItem::new(profile.as_str(), url)
        });
        info!(device = %self.device, r#ref = %choice.reference, "asked which device profile");
        MenuPage::new("Select a device profile", entries.collect()).to_xml()
    }

    fn success(&self, logged_in: &LoggedIn) -> String {
        let LoggedIn {
            user_id,
            home,
            reference,
            ..
        } = logged_in;
        info!(device = %self.device, home = %home, r#ref = %reference, "logged in");
        success_page(user_id.as_str(), home.as_str(), *reference)
    }
}

fn success_page(user: &str, home: &str, reference: Ref) -> String {
    let lines = [
        "Login successful".to_owned(),
        format!("User ID: {user}"),
        format!("Home cluster: {home}"),
        format!("Ref: {reference}"),
    ];
    let exit = SoftKey::new(1, "Exit", "SoftKey:Exit");
    TextPage::new("The phone becomes yours now", &lines, vec![exit]).to_xml()
}

/// What was typed, if it can be a name and a PIN at all. What can't be one gets the answer of a blank: type
/// it again.
fn check_typed(
    name: Option<&str>,
    pin: Option<Result<Pin, PinError>>,
) -> Result<(LoginName, Pin), String> {
    let name = name.unwrap_or_default().trim();
    if name.is_empty() {
        return Err("the name is blank".to_owned());
    }
    let name = LoginName::new(name).map_err(|error| error.to_string())?;
    let pin = pin.unwrap_or(Err(PinError::Blank));
    Ok((name, pin.map_err(|error| error.to_string())?))
}
