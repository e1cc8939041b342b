# The topics of each integration, as shared/ports.py names them: its batches go to the sink, a run that ran out of time
# goes back to the source, and rows about what happened go to BigQuery.

locals {
  channels = merge(
    { for name in keys(local.integrations) : "${name}-records" => {
      integration = name
      right       = "publish"
      function    = replace("${name}-sink", "_", "-")
      buried_by   = local.undertaker
      table       = null
    } },
    { for name in keys(local.integrations) : "${name}-continue" => {
      integration = name
      right       = "continue"
      function    = replace("${name}-source", "_", "-")
      buried_by   = ""
      table       = null
    } },
    { for name, monitoring in local.monitored : "${name}-monitoring" => {
      integration = name
      right       = "report"
      function    = ""
      buried_by   = ""
      table       = "${monitoring.dataset}.${monitoring.table}"
    } },
  )

  # The function whose entry point takes dead letters.
  undertaker = one([for key, function in local.functions : key if function.entry_point == "dead_letter"])
}

module "channel" {
  source   = "./modules/channel"
  for_each = local.channels
  project  = var.project
  name     = each.key
  labels   = { integration = each.value.integration }
  agent    = local.pubsub_agent
  backoff  = "${local.redeliver_after[each.value.integration]}s"

  push = each.value.function == "" ? null : {
    uri             = module.function[each.value.function].uri
    service_account = google_service_account.push.email
  }
  buried_by = each.value.buried_by == "" ? null : {
    uri             = module.function[each.value.buried_by].uri
    service_account = google_service_account.push.email
  }
  table = each.value.table == null ? null : "${var.project}.${each.value.table}"

  # Of an integration's topics its own functions use those that they may, and a function of the platform those of all.
  publishers = {
    for key, function in local.functions : key => module.function[key].member
    if contains(function.may, each.value.right) && contains(concat([function.folder], local.besides[function.folder]), each.value.integration) &&
    (function.folder == each.value.integration || !contains(keys(local.integrations), function.folder))
  }

  depends_on = [google_project_service.enabled, google_bigquery_table_iam_member.agent]
}
