locals {
  _service = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=monitoring.regex.full_match(\"${join("|", keys(local.functions))}\")"
  _charts = [
    {
      title   = "Messages that wait"
      filter  = "${local._subscription}/num_undelivered_messages\""
      aligner = "ALIGN_MAX"
      by      = ["resource.label.subscription_id"]
    },
    {
      title   = "Age of the oldest message"
      filter  = "${local._subscription}/oldest_unacked_message_age\""
      aligner = "ALIGN_MAX"
      by      = ["resource.label.subscription_id"]
    },
    {
      title   = "Calls a second, by function and answer"
      filter  = "${local._service} AND metric.type=\"run.googleapis.com/request_count\""
      aligner = "ALIGN_RATE"
      by      = ["resource.label.service_name", "metric.label.response_code"]
    },
    {
      title   = "Instances"
      filter  = "${local._service} AND metric.type=\"run.googleapis.com/container/instance_count\""
      aligner = "ALIGN_MAX"
      by      = ["resource.label.service_name"]
    },
    {
      title   = "Errors in the log, by action"
      filter  = "resource.type=\"cloud_run_revision\" AND metric.type=\"logging.googleapis.com/user/${google_logging_metric.actions.name}\""
      aligner = "ALIGN_SUM"
      by      = ["metric.label.action", "metric.label.integration"]
    },
    {
      title   = "Failed calls of Cloud Scheduler"
      filter  = "resource.type=\"cloud_scheduler_job\" AND metric.type=\"logging.googleapis.com/log_entry_count\" AND metric.labels.severity=\"ERROR\""
      aligner = "ALIGN_SUM"
      by      = ["resource.label.job_id"]
    },
  ]
}

resource "google_monitoring_dashboard" "hub" {
  dashboard_json = jsonencode({
    displayName = "Waybill"
    mosaicLayout = {
      columns = 12
      tiles = [
        for place, chart in local._charts : {
          xPos = 6 * (place % 2), yPos = 4 * floor(place / 2), width = 6, height = 4
          widget = {
            title = chart.title
            xyChart = {
              dataSets = [{
                plotType = "LINE"
                timeSeriesQuery = {
                  timeSeriesFilter = {
                    filter = chart.filter
                    aggregation = {
                      alignmentPeriod    = "300s"
                      perSeriesAligner   = chart.aligner
                      crossSeriesReducer = "REDUCE_SUM"
                      groupByFields      = chart.by
                    }
                  }
                }
              }]
            }
          }
        }
      ]
    }
  })
  depends_on = [google_project_service.enabled]
}
