# What the folders below functions/ say: which functions there are, and what each integration wants.

locals {
  root    = abspath("${path.module}/..")
  systems = yamldecode(file("${path.module}/systems.yaml"))

  # Every folder with a main.py, and the names that are entry points in it.
  entry_points = {
    for path in fileset(local.root, "functions/*/main.py") :
    basename(dirname(path)) => sort(flatten(regexall(local.archive.entry_points, file("${local.root}/${path}"))))
  }

  _files = {
    for path in fileset(local.root, "functions/*/integration.yaml") :
    basename(dirname(path)) => yamldecode(file("${local.root}/${path}"))
  }
  overlay = merge({}, var.overlay == null ? null : yamldecode(file(var.overlay)))
  _over   = { for name in keys(local._files) : name => try(local.overlay[name], {}) }

  # The overlay over the files, as infra/config.py merges them: mappings merge, null removes a key, everything else
  # replaces. No function calls itself here, so each level is merged by itself.
  _merged = {
    for name, file in local._files : name => {
      for key, value in merge(file, local._over[name]) :
      key => try({ for inner, each in merge(file[key], local._over[name][key]) : inner => each if each != null }, value)
      if value != null
    }
  }
  integrations = {
    for name, merged in local._merged : name => merge(merged, {
      streams = {
        for key, value in merged.streams :
        key => try(
          { for inner, each in merge(local._files[name].streams[key], local._over[name].streams[key]) : inner => each if each != null },
          value,
        )
      }
      monitoring = merge(
        { enabled = false, dataset = "tcrm_monitoring_dataset", table = "tcrm_monitoring_table" },
        try(merged.monitoring, {}),
      )
    })
  }

  # Streams that run by themselves.
  streams = {
    for name, integration in local.integrations : name => {
      for key, stream in integration.streams : key => merge(stream, {
        from = can(stream.from) ? try(
          { for inner, each in merge(local._files[name].streams[key].from, local._over[name].streams[key].from) : inner => each if each != null },
          stream.from,
        ) : null
      }) if try(stream.enabled, true)
    }
  }

  # What a folder's deploy.yaml says: `systems`, what a stream's `destination` stands for, and each entry point.
  deploy = {
    for folder in keys(local.entry_points) : folder => merge({}, (
      fileexists("${local.root}/functions/${folder}/deploy.yaml")
      ? yamldecode(file("${local.root}/functions/${folder}/deploy.yaml"))
      : null
    ))
  }

  # The systems at each end of an integration's streams.
  ends = {
    for name, integration in local.integrations : name => {
      source = distinct([for stream in values(local.streams[name]) : try(stream.from.system, integration.source.system)])
      sink = distinct([
        for stream in values(local.streams[name]) :
        try(local.deploy[name].systems[stream.destination], integration.sink.system)
      ])
    }
  }
  monitored = { for name, integration in local.integrations : name => integration.monitoring if integration.monitoring.enabled }

  # Seconds until a refused message may come again.
  _factors = { ms = 0.001, s = 1, m = 60, h = 3600, d = 86400 }
  redeliver_after = {
    for name, integration in local.integrations : name => min(600, (
      tonumber(regex("^[0-9.]+", try(integration.sink.redeliver_after, "10s"))) *
      local._factors[regex("[a-z]+$", try(integration.sink.redeliver_after, "10s"))]
    ))
  }
}

# What the hub itself would refuse at its start, and what nobody could deploy.
resource "terraform_data" "sound" {
  lifecycle {
    precondition {
      condition     = alltrue([for name in keys(local.overlay) : contains(keys(local.integrations), name)])
      error_message = "The overlay speaks of ${join(", ", setsubtract(keys(local.overlay), keys(local.integrations)))}, and there is no such folder with an integration.yaml."
    }
    precondition {
      condition     = alltrue([for name, integration in local.integrations : integration.name == name])
      error_message = "The name in an integration.yaml is that of its folder."
    }
    precondition {
      condition     = alltrue([for name in keys(local.integrations) : length(setsubtract(["source", "sink"], try(local.entry_points[name], []))) == 0])
      error_message = "The main.py of every integration has the entry points source and sink."
    }
    precondition {
      condition = alltrue(flatten([
        for ends in values(local.ends) : [for system in concat(ends.source, ends.sink) : contains(keys(local.systems), system) || strcontains(system, ".")]
      ]))
      error_message = "A stream names a system that systems.yaml does not have."
    }
    precondition {
      condition = alltrue(flatten([
        for name, ends in local.ends : [
          for system in concat(ends.source, ends.sink) : [
            for variable in try(local.systems[system].needs, []) : contains(keys(lookup(var.environment, name, {})), variable)
          ]
        ]
      ]))
      error_message = "A system has no public address: give its variable (`needs` in systems.yaml) by environment."
    }
  }
}
