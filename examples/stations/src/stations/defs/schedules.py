import dagster as dg

days = dg.define_asset_job("days", selection="group:stations")
each_day = dg.build_schedule_from_partitioned_job(days, hour_of_day=6)
