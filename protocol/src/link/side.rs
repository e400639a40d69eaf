//! Who may send what, and which answer belongs to which request.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Json;
use crate::handler::{
    Abort, Aborted, Handle, Handled, HandlerReply, HandlerRequest, Inspect, Inspected, StoreAnswer, StoreCall,
};
use crate::install::{
    Install, InstalledAdaptor, InstallerReply, InstallerRequest, MakeSnapshot, Prune, Pruned, Resolve, Resolved,
    SnapshotOutcome, Survey, Surveyed,
};
use crate::message::{
    Adopt, Adopted, BeTemplate, Cancel, Cancelled, CountUnnamed, Custom, EnvSet, HostNotice, HostReply, HostRequest,
    Ping, Pong, Prepare, Prepared, SetEnv, Stop, Stopping, Taken, Template, Unnamed, WorkerNotice, WorkerReply,
    WorkerRequest,
};
use crate::run::{RunOutcome, RunSpec, StepCompleted};

/// One end of a link: what is sent from there.
pub trait Side: Send + Sync + Sized + 'static {
    /// What it asks.
    type Request: Message;
    /// What it answers.
    type Reply: Message;
    /// What it tells.
    type Notice: Message;
    /// The other end.
    type Peer: Side<Peer = Self>;
}

/// What can be sent.
pub trait Message: Serialize + DeserializeOwned + fmt::Debug + Send + 'static {}

impl<T: Serialize + DeserializeOwned + fmt::Debug + Send + 'static> Message for T {}

/// The host's end.
#[derive(Debug)]
pub struct HostSide;

impl Side for HostSide {
    type Request = WorkerRequest;
    type Reply = HostReply;
    type Notice = WorkerNotice;
    type Peer = WorkerSide;
}

/// The worker's end.
#[derive(Debug)]
pub struct WorkerSide;

impl Side for WorkerSide {
    type Request = HostRequest;
    type Reply = WorkerReply;
    type Notice = HostNotice;
    type Peer = HostSide;
}

/// A request that `S` may make.
pub trait Call<S: Side>: Into<S::Request> + Send {
    /// What it is called in errors.
    const NAME: &'static str;
    /// What is sent back.
    type Answer: Send;
    /// Takes the answer out of a reply; none if the reply is to another kind of request.
    fn answer(reply: <S::Peer as Side>::Reply) -> Option<Self::Answer>;
}

macro_rules! call {
    ($side:ty: $call:ty as $name:literal => $request:path, $reply:path => $answer:ty) => {
        impl From<$call> for <$side as Side>::Request {
            fn from(call: $call) -> Self {
                $request(call.into())
            }
        }

        impl Call<$side> for $call {
            const NAME: &'static str = $name;
            type Answer = $answer;

            fn answer(reply: <<$side as Side>::Peer as Side>::Reply) -> Option<$answer> {
                if let $reply(answer) = reply { Some(answer) } else { None }
            }
        }
    };
}

call!(WorkerSide: Prepare as "prepare" => HostRequest::Prepare, HostReply::Prepared => Prepared);
call!(WorkerSide: RunSpec as "run" => HostRequest::Run, HostReply::Ran => RunOutcome);
call!(WorkerSide: Box<RunSpec> as "run" => HostRequest::Run, HostReply::Ran => RunOutcome);
call!(WorkerSide: Cancel as "cancel" => HostRequest::Cancel, HostReply::Cancelled => Cancelled);
call!(WorkerSide: Ping as "ping" => HostRequest::Ping, HostReply::Pong => Pong);
call!(WorkerSide: Stop as "stop" => HostRequest::Stop, HostReply::Stopping => Stopping);
call!(WorkerSide: Custom as "custom" => HostRequest::Custom, HostReply::Custom => Json);
call!(WorkerSide: SetEnv as "set env" => HostRequest::SetEnv, HostReply::EnvSet => EnvSet);
call!(WorkerSide: BeTemplate as "be template" => HostRequest::Template, HostReply::Template => Template);
call!(HostSide: Adopt as "adopt" => WorkerRequest::Adopt, WorkerReply::Adopted => Adopted);
call!(HostSide: CountUnnamed as "count unnamed files" => WorkerRequest::CountUnnamed, WorkerReply::Unnamed => Unnamed);
call!(HostSide: StepCompleted as "step completed" => WorkerRequest::StepCompleted, WorkerReply::Taken => Taken);
call!(HostSide: Box<StepCompleted> as "step completed" => WorkerRequest::StepCompleted, WorkerReply::Taken => Taken);
call!(HostSide: StoreCall as "store" => WorkerRequest::Store, WorkerReply::Store => StoreAnswer);
call!(HostSide: Custom as "custom" => WorkerRequest::Custom, WorkerReply::Custom => Json);

/// The same for what is asked of a host in one of its other roles.
macro_rules! role_call {
    ($role:ident: $call:ty as $name:literal => $request:path, $reply:path => $answer:ty) => {
        impl From<$call> for HostRequest {
            fn from(call: $call) -> Self {
                Self::$role($request(call.into()))
            }
        }

        impl Call<WorkerSide> for $call {
            const NAME: &'static str = $name;
            type Answer = $answer;

            fn answer(reply: HostReply) -> Option<$answer> {
                match reply {
                    HostReply::$role($reply(answer)) => Some(answer),
                    _ => None,
                }
            }
        }
    };
}

role_call!(Installer: Survey as "survey" => InstallerRequest::Survey, InstallerReply::Surveyed => Surveyed);
role_call!(Installer: Resolve as "resolve" => InstallerRequest::Resolve, InstallerReply::Resolved => Resolved);
role_call!(Installer: Install as "install" => InstallerRequest::Install, InstallerReply::Installed => InstalledAdaptor);
role_call!(Installer: MakeSnapshot as "make snapshot" => InstallerRequest::MakeSnapshot, InstallerReply::Snapshotted => SnapshotOutcome);
role_call!(Installer: Prune as "prune" => InstallerRequest::Prune, InstallerReply::Pruned => Pruned);
role_call!(Handler: Inspect as "inspect" => HandlerRequest::Inspect, HandlerReply::Inspected => Inspected);
role_call!(Handler: Box<Handle> as "handle" => HandlerRequest::Handle, HandlerReply::Handled => Handled);
role_call!(Handler: Abort as "abort" => HandlerRequest::Abort, HandlerReply::Aborted => Aborted);
