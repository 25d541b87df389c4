"""What is done with a family and a learner: collect, train, evaluate, record, log, benchmark."""
