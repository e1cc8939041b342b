# Cloud Scheduler calls the source of each stream that has a schedule, and the functions of the platform that have one.
# Jobs are named as infra/gcp/names.py has it: `./waybill pause` finds them by that.

locals {
  _of_streams = merge(flatten([
    for name, streams in local.streams : [
      {
        for key, stream in streams : "${name}-${key}" => {
          function = replace("${name}-source", "_", "-")
          schedule = stream.schedule
          body     = { stream = key }
        } if try(stream.schedule, null) != null
      },
      {
        for key, stream in streams : "${name}-${key}-catch-up" => {
          function = replace("${name}-source", "_", "-")
          schedule = stream.catch_up.schedule
          body     = { stream = key, catch_up = true }
        } if try(stream.catch_up.schedule, null) != null
      },
    ]
  ])...)
  jobs = merge(local._of_streams, {
    for key, function in local.functions : "${function.folder}-${function.entry_point}" => {
      function = key
      schedule = function.schedule
      body     = {}
    } if function.schedule != null
  })
}

resource "google_cloud_scheduler_job" "each" {
  for_each    = local.jobs
  region      = var.region
  name        = each.key
  description = "Calls ${each.value.function}."
  schedule    = each.value.schedule
  time_zone   = "Etc/UTC"

  # It waits a little longer than the function may take, half an hour at most.
  attempt_deadline = "${min(1800, local.functions[each.value.function].timeout + 30)}s"

  # A repeated call is harmless: a run is known by the time that it was meant for.
  retry_config {
    retry_count          = 3
    min_backoff_duration = "30s"
    max_backoff_duration = "300s"
    max_doublings        = 3
  }

  http_target {
    http_method = "POST"
    uri         = module.function[each.value.function].uri
    headers     = { "Content-Type" = "application/json" }
    body        = base64encode(jsonencode(each.value.body))
    oidc_token {
      service_account_email = google_service_account.schedule.email
      audience              = module.function[each.value.function].uri
    }
  }

  # What `./waybill pause` paused stays so.
  lifecycle {
    ignore_changes = [paused]
  }
  depends_on = [google_project_service.enabled]
}
