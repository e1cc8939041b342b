# Every entry point is a function of its own, with an account of its own that may do what it needs and nothing else.

locals {
  # The two of every integration. A rate is kept per instance, so whoever has one runs in one instance; a lane is one
  # message at a time, so a sink has a thread for each.
  _lanes     = { for name, integration in local.integrations : name => try(integration.sink.lanes, 4) }
  _boundless = { for name, integration in local.integrations : name => try(integration.sink.rate_limit, "") == "none" }
  _trades = {
    for name, integration in local.integrations : name => {
      source = {
        may         = ["books", "archive", "publish", "continue", "report"]
        secrets     = "source"
        concurrency = 2 * max(2, length(integration.streams))
      }
      sink = {
        may         = ["books", "archive", "report"]
        secrets     = "sink"
        concurrency = local._boundless[name] ? min(16, local._lanes[name]) : local._lanes[name]
        instances   = local._boundless[name] ? ceil(local._lanes[name] / 16) : 1
      }
    }
  }

  # `may`: see iam.tf. `secrets`: those of the systems at which end of the folder's integration, or of those that confirm
  # later. `people`: called by operators too, and so from anywhere. `public`: by everybody, if public_api says so.
  functions = merge([
    for folder, names in local.entry_points : {
      for entry in names : replace("${folder}-${entry}", "_", "-") => merge(
        {
          folder      = folder
          entry_point = entry
          may         = ["books"]
          secrets     = ""
          memory      = "512M"
          timeout     = 600
          concurrency = 4
          instances   = 1
          people      = false
          public      = false
          schedule    = null
        },
        try(local._trades[folder][entry], {}),
        try(local.deploy[folder][entry], {}),
      )
    }
  ]...)

  every_secret = toset(flatten([for system in values(local.systems) : try(system.secrets, [])]))
  # Integrations whose targets confirm later: whoever asks them needs what their sinks have.
  _confirming = [
    for name, ends in local.ends : name if anytrue([for system in ends.sink : try(local.systems[system].confirms, false)])
  ]
  _settings_of = {
    for key, function in local.functions :
    key => concat(function.secrets == "confirming" ? local._confirming : [], [function.folder])
  }
  _systems = {
    for key, function in local.functions : key => (
      function.secrets == "confirming" ? flatten([
        for name in local._confirming : [for system in local.ends[name].sink : system if try(local.systems[system].confirms, false)]
      ]) :
      function.secrets == "" ? [] :
      local.ends[function.folder][function.secrets]
    )
  }
  secrets = {
    for key, function in local.functions : key => toset(concat(
      flatten([for system in local._systems[key] : try(local.systems[system].secrets, [])]),
      flatten([for name in local._settings_of[key] : tolist(lookup(var.secrets, name, []))]),
    ))
  }
}

module "function" {
  source      = "./modules/function"
  for_each    = local.functions
  name        = each.key
  project     = var.project
  region      = var.region
  description = "${each.value.entry_point} of ${each.value.folder}"
  labels      = { folder = each.value.folder, entry_point = each.value.entry_point }

  source_archive = {
    bucket = google_storage_bucket_object.archive[each.value.folder].bucket
    object = google_storage_bucket_object.archive[each.value.folder].name
  }
  build = {
    service_account = google_service_account.build.id
    repository      = google_artifact_registry_repository.images.id
    environment     = local.archive.build_environment
  }
  entry_point = each.value.entry_point
  scaling = {
    memory      = each.value.memory
    timeout     = each.value.timeout
    concurrency = each.value.concurrency
    instances   = each.value.instances
  }
  environment = merge(
    {
      GOOGLE_CLOUD_PROJECT = var.project
      WAYBILL_BACKEND      = "gcp"
      WAYBILL_BUCKET       = google_storage_bucket.archive.name
      WAYBILL_LOCATION     = var.region
    },
    length(local.overlays[each.value.folder]) > 0 ? { WAYBILL_OVERLAY = local.archive.overlay } : {},
    [for name in local._settings_of[each.key] : lookup(var.environment, name, {})]...
  )
  secrets = {
    for name in local.secrets[each.key] : name => {
      id      = google_secret_manager_secret.each[name].secret_id
      version = lookup(var.secret_versions, name, "latest")
    }
  }
  from_anywhere = each.value.people || each.value.public
  invokers = merge(
    contains(local.scheduled, each.key) ? { schedule = google_service_account.schedule.member } : {},
    contains(local.pushed, each.key) ? { push = google_service_account.push.member } : {},
    each.value.people ? { for member in var.operators : member => member } : {},
    each.value.public && var.public_api ? { everybody = "allUsers" } : {},
  )

  depends_on = [
    google_artifact_registry_repository_iam_member.build,
    google_project_iam_member.build,
    google_project_service.enabled,
    terraform_data.sound,
  ]
}

locals {
  scheduled = distinct([for job in values(local.jobs) : job.function])
  pushed    = compact(distinct(flatten([for channel in values(local.channels) : [channel.function, channel.buried_by]])))
}
