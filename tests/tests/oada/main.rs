//! OADA: the double, the client, the service and its faults, one behaviour a file.

mod real_client;
