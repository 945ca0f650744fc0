const struct code sr_codes[] = {{"PULMO001", "99PULMO", "Predictive entropy in nats"}};
