# Who is told when. The hub raises alerts of its own (docs/operating.md), which arrive here as lines of its log; the rest
# is what only the platform sees.

resource "google_logging_metric" "actions" {
  name        = "waybill/actions"
  description = "Lines of the hub's log, by their action and integration"
  filter      = "resource.type=\"cloud_run_revision\" AND jsonPayload.action:* AND severity>=ERROR"
  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
    labels {
      key = "action"
    }
    labels {
      key = "integration"
    }
  }
  label_extractors = {
    action      = "EXTRACT(jsonPayload.action)"
    integration = "EXTRACT(jsonPayload.integration)"
  }
  depends_on = [google_project_service.enabled]
}

resource "google_monitoring_notification_channel" "email" {
  for_each     = var.notification_emails
  display_name = "Waybill: ${each.key}"
  type         = "email"
  labels       = { email_address = each.key }
  depends_on   = [google_project_service.enabled]
}

locals {
  _subscription = "resource.type=\"pubsub_subscription\" AND metric.type=\"pubsub.googleapis.com/subscription"
  _ours         = "(${join("|", keys(local.channels))})"
  alerts = {
    dead_letters = {
      title   = "Dead letters wait"
      advice  = "A message ended whoever took it. Mend the cause, then pull and publish it again, or replay the failures."
      filter  = "${local._subscription}/num_undelivered_messages\" AND resource.labels.subscription_id=monitoring.regex.full_match(\"${local._ours}-dead\")"
      above   = 0
      during  = "600s"
      aligner = "ALIGN_MAX"
    }
    stuck = {
      title   = "Messages have waited for an hour"
      advice  = "The function behind the subscription refuses them: an end is away, or a credential is refused."
      filter  = "${local._subscription}/oldest_unacked_message_age\" AND resource.labels.subscription_id=monitoring.regex.full_match(\"${local._ours}\")"
      above   = 3600
      during  = "300s"
      aligner = "ALIGN_MAX"
    }
    schedule = {
      title   = "Cloud Scheduler's calls fail"
      advice  = "Each call is tried four times. The log of the function that it calls says why."
      filter  = "resource.type=\"cloud_scheduler_job\" AND metric.type=\"logging.googleapis.com/log_entry_count\" AND metric.labels.severity=\"ERROR\""
      above   = 4
      during  = "0s"
      aligner = "ALIGN_SUM"
    }
  }
}

resource "google_monitoring_alert_policy" "above" {
  for_each              = local.alerts
  display_name          = "Waybill: ${each.value.title}"
  combiner              = "OR"
  notification_channels = [for channel in google_monitoring_notification_channel.email : channel.id]
  conditions {
    display_name = each.value.title
    condition_threshold {
      filter          = each.value.filter
      comparison      = "COMPARISON_GT"
      threshold_value = each.value.above
      duration        = each.value.during
      aggregations {
        alignment_period   = "300s"
        per_series_aligner = each.value.aligner
      }
    }
  }
  documentation {
    content   = each.value.advice
    mime_type = "text/markdown"
  }
  alert_strategy {
    auto_close = "86400s"
  }
}

resource "google_monitoring_alert_policy" "raised" {
  display_name          = "Waybill: The hub raised an alert"
  combiner              = "OR"
  notification_channels = [for channel in google_monitoring_notification_channel.email : channel.id]
  conditions {
    display_name = "alert_raised in the log"
    condition_matched_log {
      filter = "resource.type=\"cloud_run_revision\" AND jsonPayload.action=\"alert_raised\""
      label_extractors = {
        alert = "EXTRACT(jsonPayload.alert)"
        text  = "EXTRACT(jsonPayload.text)"
      }
    }
  }
  documentation {
    content   = "$${log.extracted_label.alert}: $${log.extracted_label.text}. docs/operating.md says what to do."
    mime_type = "text/markdown"
  }
  alert_strategy {
    auto_close = "86400s"
    notification_rate_limit {
      period = "300s"
    }
  }
  depends_on = [google_project_service.enabled]
}

# Whoever is called by the schedule every few minutes is missed when it is not.
resource "google_monitoring_alert_policy" "silent" {
  display_name          = "Waybill: The sweeper does not run"
  combiner              = "OR"
  notification_channels = [for channel in google_monitoring_notification_channel.email : channel.id]
  conditions {
    display_name = "No call within half an hour"
    condition_absent {
      filter   = "resource.type=\"cloud_run_revision\" AND metric.type=\"run.googleapis.com/request_count\" AND resource.labels.service_name=\"${local.sweeper}\""
      duration = "1800s"
      aggregations {
        alignment_period     = "300s"
        per_series_aligner   = "ALIGN_SUM"
        cross_series_reducer = "REDUCE_SUM" # whatever it answers
      }
    }
  }
  documentation {
    content   = "What was committed and got lost on its way is not published again, and no alert of the hub is raised. Is the job paused?"
    mime_type = "text/markdown"
  }
  depends_on = [module.function]
}

locals {
  sweeper = one([for key, function in local.functions : key if function.entry_point == "sweep"])
}
