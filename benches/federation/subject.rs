//! The real thing: two clusters of a lab, many phones, and a peer's connection to one of them.

use std::{fmt::Write as _, path::Path, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use emccd::{
    lab::{Lab, Spec, cluster_name, phone::Phone},
    wire::pb::{self, federation_service_client::FederationServiceClient},
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tonic::{Request, transport::Channel};

use super::baseline;

/// Phones, users and base devices: logins of one pass. A figure takes several passes, with everybody logged out
/// between them.
const SIZE: usize = 256;
const PIN: &str = "135790";

/// Two clusters under measurement.
pub(crate) struct Subject {
    lab: Lab,
    phones: Vec<Phone>,
    peer: FederationServiceClient<Channel>,
}

impl Subject {
    /// Starts both clusters with this cost of a hash.
    pub(crate) async fn start(folder: &Path, name: &str, hash: &[&str]) -> Result<Arc<Self>> {
        let data = folder.join(name);
        std::fs::create_dir_all(&data)?;
        for index in 0..2 {
            let cluster = cluster_name(index)?;
            std::fs::write(data.join(format!("{cluster}.toml")), dataset(index)?)?;
        }
        let mut settings: Vec<_> = hash
            .iter()
            .map(|line| ("credentials".to_owned(), (*line).to_owned()))
            .collect();
        settings.push(("log".to_owned(), "level = \"error\"".to_owned()));
        let spec = Spec {
            data: Some(data),
            settings,
            ..Spec::default()
        };
        let lab = Lab::start(&spec).await?;
        let visiting = lab.cluster(1)?;
        // A phone keeps its connection; so do ours. A few stand for all of them.
        let phones = (0..super::CONCURRENCY)
            .map(|_| visiting.member()?.phone())
            .collect::<Result<_>>()?;
        let (home, visiting) = (lab.cluster(0)?.member()?, visiting.member()?);
        let channel = baseline::connect(
            home.addresses.federation.parse()?,
            &std::fs::read(&home.ca_file)?,
            &std::fs::read(&visiting.federation_certificate)?,
            &std::fs::read(&visiting.federation_key)?,
        )
        .await?;
        Ok(Arc::new(Self {
            phones,
            peer: FederationServiceClient::new(channel),
            lab,
        }))
    }

    /// How many phones there are, which is how many can log in before somebody must log out.
    pub(crate) const fn size(&self) -> usize {
        SIZE
    }

    /// One `FindUser`: every other name is nobody's, which is re-checked in the store as the others are.
    pub(crate) async fn find_user(&self, number: usize) -> Result<()> {
        let name = if number.is_multiple_of(2) {
            format!("u{}.0", number % SIZE)
        } else {
            format!("nobody{number}")
        };
        let request = pb::FindUserRequest {
            login_type: 0,
            name,
        };
        self.peer.clone().find_user(Request::new(request)).await?;
        Ok(())
    }

    /// User `number` of the first cluster on phone `number` of the second.
    pub(crate) async fn log_in(&self, number: usize) -> Result<()> {
        let phone = self
            .phones
            .get(number % self.phones.len())
            .context("no phones")?;
        let shown = phone
            .login_at_once(
                &format!("SEP1{number:08}"),
                None,
                &format!("u{number}.0"),
                PIN,
            )
            .await?;
        ensure!(
            shown.em_code.is_none(),
            "login {number} showed {}",
            shown.text
        );
        Ok(())
    }

    /// Ends every session.
    pub(crate) async fn log_all_out(&self) -> Result<()> {
        let logouts = (0..SIZE).map(|number| async move {
            let phone = self
                .phones
                .get(number % self.phones.len())
                .context("no phones")?;
            let path = format!("/emapp/EMAppServlet?device=SEP1{number:08}&doLogout=true");
            let shown = phone.raw_get(&path).await?;
            ensure!(
                shown.em_code.is_none(),
                "logout {number} showed {}",
                shown.text
            );
            Ok(())
        });
        stream::iter(logouts)
            .buffer_unordered(super::CONCURRENCY)
            .try_for_each(|()| async { Ok(()) })
            .await
    }

    /// Ends the clusters.
    pub(crate) async fn stop(self: Arc<Self>) {
        if let Ok(subject) = Arc::try_unwrap(self).map_err(drop) {
            subject.lab.shut_down().await;
        }
    }
}

fn dataset(index: usize) -> Result<String> {
    let mut toml = String::new();
    for number in 0..SIZE {
        writeln!(
            toml,
            "[[user]]\nid = \"u{number}.{index}\"\npin = \"{PIN}\""
        )?;
        writeln!(
            toml,
            "[[profile]]\nname = \"p{number}.{index}\"\nuser = \"u{number}.{index}\"\ndefault = true"
        )?;
        writeln!(
            toml,
            "[[device]]\nname = \"SEP{index}{number:08}\"\nmodel = \"CP-8841\""
        )?;
    }
    writeln!(toml, "[[base-device]]\nname = \"EMCC\"\ncount = {SIZE}")?;
    Ok(toml)
}
