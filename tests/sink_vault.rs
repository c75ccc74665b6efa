mod support {
    pub mod sink_contract;
}
