"""Jobs from elsewhere: following one, or a run; creating one from a CronJob."""
