//! Several services in one process.

use oada::{JobError, NewJob, Service, do_job};
use serde_json::json;
use tests::oada::Oada;

use crate::support::{LONG, client, quick, start, within};

#[tokio::test]
async fn they_do_not_get_in_each_others_way() {
    let oada = Oada::start().await;
    let mut services = Vec::new();
    for name in ["greeter", "mailer"] {
        let service = Service::builder(name, oada.url().parse().unwrap(), tests::oada::TOKEN.into())
            .options(|options| options.client = quick())
            .on("work", LONG, move |job, _| async move { Ok::<_, JobError>(json!([name, job.service])) });
        services.push(start(&oada, service).await);
    }
    let client = client(&oada);
    for name in ["greeter", "mailer"] {
        let job = NewJob { service: name.to_owned(), kind: "work".to_owned(), config: Default::default() };
        let done = within("the end", &oada, do_job(&client, &job)).await.unwrap();
        assert_eq!(done.result, Some(json!([name, name])));
    }
}
