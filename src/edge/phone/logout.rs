//! Logging out: the question, the act, the success page.

use std::sync::Arc;

use tracing::{Instrument, Span, info};

use super::{
    Phone,
    failure::lost,
    xml::{SoftKey, TextPage},
};
use crate::{
    domain::ids::{ClusterId, Ref, UserId},
    visiting::{Failure, LoggedOut},
};

impl Phone {
    /// Asks whether whoever is on the phone shall be logged out.
    pub(super) fn logout_question(&self, user: &UserId, home: &ClusterId) -> String {
        let lines = [
            "Log out of this phone?".to_owned(),
            format!("User ID: {user}"),
            format!("Home cluster: {home}"),
        ];
        let keys = vec![
            SoftKey::new(1, "Yes", self.logout_url.clone()),
            SoftKey::new(2, "No", "SoftKey:Exit"),
        ];
        TextPage::new("Log out?", &lines, keys).to_xml()
    }

    /// Logs out without asking. It goes on when the phone hangs up.
    pub(super) async fn logout(&self) -> Result<String, Failure> {
        let reference = self.desk.new_ref();
        let (desk, device, caller) = (Arc::clone(&self.desk), self.device.clone(), self.caller);
        let task = async move { desk.logout(device.as_str(), caller, reference).await }
            .instrument(Span::current());
        match self.tasks.spawn("phone-logout", task).await {
            Ok(Ok(logged_out)) => {
                let acknowledged = logged_out.acknowledged;
                info!(device = %self.device, home = %logged_out.home, acknowledged, r#ref = %reference, "logged out");
                Ok(success_page(&logged_out, reference))
            }
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(lost(reference)),
        }
    }
}

fn success_page(logged_out: &LoggedOut, reference: Ref) -> String {
    let mut lines = vec![
        "Logout successful".to_owned(),
        format!("User ID: {}", logged_out.user),
        format!("Home cluster: {}", logged_out.home),
    ];
    if !logged_out.acknowledged {
        lines.push("Your home cluster can't be reached; it will be told later.".to_owned());
    }
    lines.push(format!("Ref: {reference}"));
    let exit = SoftKey::new(1, "Exit", "SoftKey:Exit");
    TextPage::new("The phone is free again", &lines, vec![exit]).to_xml()
}
